/** Node.js below this cannot run TypeScript as it is, nor what Holdfast is built on. */
const nodeMin = 24

/**
 * Stops with the mend when another Node.js runs than the one that is installed with the project. Imports nothing, so
 * that an old Node.js gets as far as this.
 */
export const requireNode = (): void => {
  const major = Number(process.versions.node.split(".")[0])
  if (major >= nodeMin) return
  process.stderr.write(
    `Holdfast needs Node.js ${nodeMin}, and this is ${process.version} (${process.execPath}).\n` +
      `Node.js ${nodeMin} is installed with the project: run "npm start", or node_modules/.bin/node src/main.ts.\n` +
      `If that is missing: npm install --allow-scripts=node (npm 11 and later run no install script that is not allowed).\n`
  )
  process.exit(1)
}
