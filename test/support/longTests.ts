/**
 * Tests that install or start other programs again and again, and take a minute each: `npm run test:faults` runs them, so
 * that `npm test` stays within five minutes.
 */
export const longTests = [
  "test/contract/commandLine.test.ts",
  "test/contract/generatedClients.test.ts",
  "test/contract/ordinaryRole.test.ts",
  "test/layers/KafkaBroker.test.ts",
  "test/package.test.ts"
]
