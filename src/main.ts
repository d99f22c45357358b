import { requireNode } from "./cli/requireNode.ts"

requireNode()
const { serve } = await import("./cli/serve.ts")
serve()
