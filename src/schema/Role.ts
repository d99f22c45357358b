import { type Permission, everyPermission } from "./Principal.ts"

/** What each role of a person may do, where no identity service says otherwise. Unknown roles grant nothing. */
export const permissionsOfRole: ReadonlyMap<string, ReadonlyArray<Permission>> = new Map<
  string,
  ReadonlyArray<Permission>
>([
  ["owner", ["admin"]],
  ["admin", ["admin"]],
  ["manager", [...everyPermission].filter((permission) => permission !== "admin")],
  ["warehouse", ["inventory:read", "inventory:adjust", "wms:sync", "notifications:read"]],
  ["kitchen", ["inventory:read", "kitchen:write", "notifications:read"]],
  ["purchaser", ["inventory:read", "procurement:write", "notifications:read"]],
  ["clerk", ["inventory:read", "inventory:reserve", "notifications:read"]],
  ["viewer", ["inventory:read", "notifications:read"]]
])

/** The roles that may do what a permission allows. */
export const rolesWith = (permission: Permission): ReadonlyArray<string> =>
  [...permissionsOfRole]
    .filter(([, granted]) => granted.includes(permission) || granted.includes("admin"))
    .map(([role]) => role)
