import { Clock, Effect, Random } from "effect"

/** Ids of ours: UUIDv7 made from Effect's clock and random source, so that a seeded test repeats exactly. */

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, "0")

/** A UUIDv7 of a time and random words. */
export const uuidV7 = (at: number, random: Random.Random): string => {
  const word = (): number => Math.floor(random.nextDoubleUnsafe() * 0x1_0000_0000)
  const time = hex(Math.max(0, at), 12)
  const [a, b, c] = [word(), word(), word()]
  return `${time.slice(0, 8)}-${time.slice(8)}-7${hex(a & 0xfff, 3)}-${hex(0x8000 | ((a >>> 12) & 0x3fff), 4)}-${hex(b & 0xffff, 4)}${hex(c, 8)}`
}

export const nextUuid: Effect.Effect<string> = Effect.withFiber((fiber) =>
  Effect.succeed(uuidV7(fiber.getRef(Clock.Clock).currentTimeMillisUnsafe(), fiber.getRef(Random.Random)))
)
