import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs/promises"
import * as path from "node:path"

/**
 * What Kafka and Debezium are made of: pinned jars, fetched with Maven into its own repository once (45 and 150 MB).
 * `npm run kafka:install` does it ahead; a test that needs a server does it if nobody has.
 */

const kafkaVersion = "4.3.1"
const debeziumVersion = "3.7.0.Final"
const slf4jVersion = "1.7.36"
const classpathPlugin = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"

export type JavaServer = "kafka" | "debezium"

const artifacts: Readonly<Record<JavaServer, ReadonlyArray<string>>> = {
  kafka: [`org.apache.kafka:kafka_2.13:${kafkaVersion}`, `org.slf4j:slf4j-simple:${slf4jVersion}`],
  debezium: [
    `io.debezium:debezium-connector-postgres:${debeziumVersion}`,
    `org.apache.kafka:connect-runtime:${kafkaVersion}`,
    `org.apache.kafka:connect-json:${kafkaVersion}`,
    `org.slf4j:slf4j-simple:${slf4jVersion}`
  ]
}

/** Goes with `npm ci`, and is then made anew from Maven's repository without a download. */
const cache = path.join(import.meta.dirname, "..", "..", "node_modules", ".cache", "holdfast-java")
const installMaxMs = 600_000
const lockPollMs = 200

/** Why no server can be started here, or `undefined`. */
export const javaMissing = (): string | undefined =>
  spawnSync("java", ["-version"]).status === 0 ? undefined : "there is no Java (17 or newer) on the PATH"

/** The class path of a server, whose jars are fetched first if they are not here. */
export const classpathOf = async (server: JavaServer): Promise<string> => {
  const file = path.join(cache, `${server}-${kafkaVersion}-${debeziumVersion}.classpath`)
  const installed = () =>
    fs.readFile(file, "utf8").then(async (text) => {
      await Promise.all(text.split(path.delimiter).map((jar) => fs.access(jar)))
      return text
    })
  return installed().catch(() =>
    oneAtATime(() =>
      installed().catch(async () => {
        await fetchJars(server, file)
        return installed()
      })
    )
  )
}

const fetchJars = async (server: JavaServer, file: string): Promise<void> => {
  const missing = javaMissing()
  if (missing !== undefined) throw new Error(`${missing}: install one to run ${server}`)
  if (spawnSync("mvn", ["-v"]).status !== 0) {
    throw new Error(`there is no Maven (mvn) on the PATH: install it to fetch what ${server} is made of`)
  }
  const folder = path.join(cache, server)
  await fs.mkdir(folder, { recursive: true })
  await fs.writeFile(path.join(folder, "pom.xml"), pomOf(artifacts[server]))
  const written = path.join(folder, "classpath")
  const pom = path.join(folder, "pom.xml")
  const parameters = ["-q", "-B", "-f", pom, classpathPlugin, `-Dmdep.outputFile=${written}`]
  const { code, output } = await run("mvn", parameters)
  if (code !== 0) throw new Error(`Maven could not fetch what ${server} is made of:\n${output}`)
  // Last, and whole: whoever finds the file finds the jars.
  await fs.writeFile(`${file}.new`, (await fs.readFile(written, "utf8")).trim())
  await fs.rename(`${file}.new`, file)
}

const pomOf = (coordinates: ReadonlyArray<string>): string => {
  const dependencies = coordinates.map((coordinate) => {
    const [group, artifact, version] = coordinate.split(":")
    return `<dependency><groupId>${group}</groupId><artifactId>${artifact}</artifactId><version>${version}</version></dependency>`
  })
  return `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>holdfast</groupId><artifactId>test-servers</artifactId><version>1</version>
  <dependencies>${dependencies.join("\n    ")}</dependencies>
</project>
`
}

const run = (command: string, parameters: ReadonlyArray<string>) =>
  new Promise<{ readonly code: number | null; readonly output: string }>((resolve) => {
    const child = spawn(command, parameters, { stdio: ["ignore", "pipe", "pipe"], timeout: installMaxMs })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)))
    child.once("error", (error) => resolve({ code: null, output: error.message }))
    child.once("close", (code) => resolve({ code, output }))
  })

/** Two Mavens at once would write over each other. The lock is a folder, with the id of whoever holds it. */
const oneAtATime = async <A>(work: () => Promise<A>): Promise<A> => {
  const lock = path.join(cache, "lock")
  await fs.mkdir(cache, { recursive: true })
  const giveUpAt = Date.now() + installMaxMs
  for (;;) {
    try {
      await fs.writeFile(lock, String(process.pid), { flag: "wx" })
      break
    } catch {
      const holder = Number(await fs.readFile(lock, "utf8").catch(() => ""))
      if (holder > 0 && !isAlive(holder)) await fs.rm(lock, { force: true })
      else if (Date.now() > giveUpAt) throw new Error(`somebody else installs for too long: see ${lock}`)
      else await new Promise((resolve) => setTimeout(resolve, lockPollMs))
    }
  }
  try {
    return await work()
  } finally {
    await fs.rm(lock, { force: true })
  }
}

export const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM"
  }
}

if (process.argv[1] === import.meta.filename) {
  try {
    for (const server of Object.keys(artifacts) as ReadonlyArray<JavaServer>) {
      const jars = (await classpathOf(server)).split(path.delimiter).length
      process.stdout.write(`${server}: ${jars} jars are here\n`)
    }
  } catch (error) {
    process.stderr.write(`kafka:install: ${(error as Error).message}\n`)
    process.exitCode = 1
  }
}
