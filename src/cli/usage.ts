import { Console, Effect } from "effect"
import { CliError, CliOutput } from "effect/cli"

/**
 * What is wrong with a command line, on stderr, with the fault in the first line. Help is shown where it is asked for, by
 * `--help` or by a command that has nothing to do but to name its commands.
 */
export const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.forEach(
          [...event.errors.map(faultOf), `${event.commandPath.join(" ")} --help shows how it is used`],
          (line) => Console.error(`holdfast: ${line}`),
          { discard: true }
        )
      : CliOutput.defaultPresenter.present(event)
})

/** One means that there are findings: what a command did not begin to do has a code of its own. */
const misuseCode = 2

/** The exit code of a wrong command line; undefined for every other failure. */
export const usageCode = (failure: unknown): number | undefined =>
  !CliError.isCliError(failure)
    ? undefined
    : failure._tag === "ShowHelp" && failure.errors.length === 0
      ? 0
      : misuseCode

const faultOf = (error: CliError.NonShowHelpErrors): string => {
  switch (error._tag) {
    case "UnrecognizedOption":
      return `there is no flag ${error.option}${suggested(error.suggestions)}`
    case "UnknownSubcommand":
      return `${(error.parent ?? ["holdfast"]).join(" ")} has no command ${JSON.stringify(error.subcommand)}${suggested(error.suggestions)}`
    case "MissingOption":
      return `--${error.option} is missing`
    case "MissingArgument":
      return `<${error.argument}> is missing`
    case "UnexpectedArgument":
      return `${error.arguments.map((each) => JSON.stringify(each)).join(", ")} is more than this command takes`
    case "InvalidValue":
      return invalidValue(error)
    default:
      return error.message
  }
}

const suggested = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "" : `: did you mean ${names.join(" or ")}?`

/** The words of a schema follow what they are about ("must be a month"); those of the library do not. */
const invalidValue = ({ expected, kind, option, value }: CliError.InvalidValue): string => {
  const name = kind === "flag" ? `--${option}` : `<${option}>`
  const words = expected
    .replace(/^Schema validation failed: /, "")
    .replace(/^Expected:? ?/, "")
    .replaceAll(/"([^"]*)" \| /g, "$1, ")
    .replace(/, "([^"]*)"$/, " or $1")
    .replace(/^(integer|a string representing a finite number)$/, "a whole number")
  if (value === "") return `${name} needs a value${words === "string" ? "" : `: ${words}`}`
  const given = JSON.stringify(value)
  if (words.startsWith(given)) return `${name}: ${words}`
  return words.startsWith("must ") ? `${name} ${given} ${words}` : `${name} ${given} is not ${words}`
}
