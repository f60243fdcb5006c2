/** When work is done that is asked for more often than it is needed. */

/** Runs `work` soon, and at most once in `ms` however often it is asked for. */
export function throttled(ms: number, work: () => void): () => void {
  let timer: ReturnType<typeof setTimeout> | null = null;
  return () => {
    timer ??= setTimeout(() => {
      timer = null;
      work();
    }, ms);
  };
}

/**
 * Runs `work` at once, but never twice at a time, and not again before `ms` after it has ended. What is asked for
 * meanwhile is one more run.
 */
export function paced(ms: number, work: () => Promise<void>): () => void {
  let timer: ReturnType<typeof setTimeout> | null = null;
  let running = false;
  let again = false;
  let rested = 0;
  const ask = () => {
    if (running) again = true;
    else timer ??= setTimeout(() => void run(), Math.max(0, rested - performance.now()));
  };
  const run = async () => {
    timer = null;
    running = true;
    again = false;
    try {
      await work();
    } finally {
      running = false;
      rested = performance.now() + ms;
      if (again) ask();
    }
  };
  return ask;
}

/** Does `work` until it is done; the waits between double from `firstMs` to `lastMs`. Each failure is told. */
export async function persistent<T>(
  firstMs: number,
  lastMs: number,
  work: () => Promise<T>,
  onFailure: (error: unknown) => void,
): Promise<T> {
  for (let wait = firstMs; ; wait = Math.min(wait * 2, lastMs)) {
    try {
      return await work();
    } catch (error) {
      onFailure(error);
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}
