/**
 * Checks a body before anything parses it (CONTRACTS section 4, limits): the parser would take a depth of 100,000, and
 * of two members with the same name keep the last one in silence, where another reader of the same bytes keeps the
 * first. More than `entriesMax` are not taken in an object, nor in a list that is a member of the outermost one: each bad
 * element would get an error of its own before anybody counted them, and 80,000 names take the parser as long as
 * hundreds of good requests. Returns what is wrong, or undefined.
 */
export const jsonDepthMax = 32

export const checkJson = (text: string, entriesMax = Number.POSITIVE_INFINITY): string | undefined => {
  const start = firstToken(text)
  if (start !== "{") return start === undefined ? "must be a JSON object, not empty" : "must be a JSON object"
  let depth = 0
  // The names at each depth where the members of an object are, undefined where the elements of an array are.
  const namesAt: Array<Names | undefined> = []
  let expectsName = false
  /** Of the list that is a member of the outermost object. */
  let elements = 0
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === quote) {
      const end = endOfString(text, index)
      if (expectsName) {
        expectsName = false
        const name = nameOf(text.slice(index + 1, end))
        if (namesAt[depth]?.add(name) === false)
          return `must not have two members of the same name (${shown(name)})`
        if (namesAt[depth]!.size > entriesMax) return tooMany(entriesMax)
      }
      index = end
    } else if (code === openBrace || code === openBracket) {
      depth += 1
      if (depth > jsonDepthMax) return `must not be nested deeper than ${jsonDepthMax} levels`
      expectsName = code === openBrace
      namesAt[depth] = expectsName ? new Names() : undefined
      if (depth === 2) elements = 1
    } else if (code === closeBrace || code === closeBracket) {
      depth -= 1
      expectsName = false
    } else if (code === comma) {
      expectsName = namesAt[depth] !== undefined
      if (depth === 2 && !expectsName && ++elements > entriesMax) return tooMany(entriesMax)
    }
  }
  return undefined
}

const tooMany = (entriesMax: number): string =>
  `must not have more than ${entriesMax} entries in an object or a list`

/** The names of one object: few as a rule, and then looking through them is cheaper than hashing. */
class Names {
  #few: Array<string> = []
  #many: Set<string> | undefined

  get size(): number {
    return this.#many?.size ?? this.#few.length
  }

  /** False for a name that is there already. */
  add(name: string): boolean {
    if (this.#many === undefined) {
      if (this.#few.includes(name)) return false
      this.#few.push(name)
      if (this.#few.length > fewMax) this.#many = new Set(this.#few)
      return true
    }
    const before = this.#many.size
    return this.#many.add(name).size > before
  }
}
const fewMax = 16

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const comma = 0x2c

const firstToken = (text: string): string | undefined => /[^\s\uFEFF]/.exec(text)?.[0]

const endOfString = (text: string, start: number): number => {
  for (let index = start + 1; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === backslash) index += 1
    else if (code === quote) return index
  }
  return text.length
}

/** A name may be written with escapes. One that is written wrongly is the parser's business. */
const nameOf = (raw: string): string => {
  if (!raw.includes("\\")) return raw
  try {
    return JSON.parse(`"${raw}"`) as string
  } catch {
    return raw
  }
}

const shown = (name: string): string => JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name)
