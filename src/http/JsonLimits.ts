/**
 * Checks a body before anything parses it (CONTRACTS section 4, limits): the parser would take a depth of 100,000, round
 * large integers in silence and read `1e400` as infinity. Returns what is wrong, or undefined.
 */
export const jsonDepthMax = 32

export const checkJson = (text: string): string | undefined => {
  const start = firstToken(text)
  if (start !== "{") return start === undefined ? "must be a JSON object, not empty" : "must be a JSON object"
  let depth = 0
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === quote) {
      index = endOfString(text, index)
    } else if (code === openBrace || code === openBracket) {
      depth += 1
      if (depth > jsonDepthMax) return `must not be nested deeper than ${jsonDepthMax} levels`
    } else if (code === closeBrace || code === closeBracket) {
      depth -= 1
    }
  }
  return undefined
}

const quote = 0x22
const backslash = 0x5c
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d

const firstToken = (text: string): string | undefined => /[^\s\uFEFF]/.exec(text)?.[0]

const endOfString = (text: string, start: number): number => {
  for (let index = start + 1; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code === backslash) index += 1
    else if (code === quote) return index
  }
  return text.length
}
