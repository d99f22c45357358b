/**
 * The ids that a posting gives away: its own, counted on in the last twelve digits. The operations of a bulk draw theirs
 * from one count, so that none of them meets those of its neighbours, however many it needs.
 */
export class DerivedIds {
  readonly #head: string
  /** Two times six digits, because numbers of more than 31 bits are slow to write. */
  #upper: number
  #lower: number
  /** All but the lower six digits. */
  #begin: string

  constructor(postingId: string) {
    this.#head = postingId.slice(0, 24)
    this.#upper = Number.parseInt(postingId.slice(24, 30), 16)
    this.#lower = Number.parseInt(postingId.slice(30), 16)
    this.#begin = postingId.slice(0, 30)
  }

  next(): string {
    this.#lower = (this.#lower + 1) % 0x1000000
    if (this.#lower === 0) {
      this.#upper = (this.#upper + 1) % 0x1000000
      this.#begin = this.#head + sixDigits(this.#upper)
    }
    return this.#begin + sixDigits(this.#lower)
  }
}

const sixDigits = (value: number): string => threeDigits[value >>> 12]! + threeDigits[value & 0xfff]!
const threeDigits = Array.from({ length: 0x1000 }, (_, value) => value.toString(16).padStart(3, "0"))
