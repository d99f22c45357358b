/** A cache without a limit, for metrics with their attributes: routes, status codes and failures are few. */
export const onePerKey = <K, M>(make: (key: K) => M): ((key: K) => M) => {
  const made = new Map<K, M>()
  return (key) => {
    let metric = made.get(key)
    if (metric === undefined) made.set(key, (metric = make(key)))
    return metric
  }
}
