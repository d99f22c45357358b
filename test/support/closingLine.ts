import type { Reporter, TestModule } from "vitest/node"

/** Ends a run with the line that any reader of its output can count by: `N passed, N failed`. */
export default class ClosingLine implements Reporter {
  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    const counts = { passed: 0, failed: unhandledErrors.length, skipped: 0 }
    for (const module of modules) {
      // A file that could not even be loaded has no tests to count.
      if (module.state() === "failed" && module.children.size === 0) counts.failed += 1
      // Where what a block stands on could not be made, its tests were not run.
      for (const suite of module.children.allSuites()) if (suite.errors().length > 0) counts.failed += 1
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        if (state === "passed") counts.passed += 1
        else if (state === "failed") counts.failed += 1
        else counts.skipped += 1
      }
    }
    const skipped = counts.skipped === 0 ? "" : `, ${counts.skipped} skipped`
    // After the other reporters' summaries, so that it is the last line.
    process.once("exit", () =>
      process.stdout.write(`\n${counts.passed} passed, ${counts.failed} failed${skipped}\n`)
    )
  }
}
