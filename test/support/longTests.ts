/** Tests that install or serve other programs, and take minutes: `npm run test:faults` runs them. */
export const longTests = ["test/contract/generatedClients.test.ts", "test/contract/ordinaryRole.test.ts"]
