// What is listed again from time to time.

/** Milliseconds. */
const EVERY = 5000;

/** Lists by `list`, for who has just been let in, and again and again from then on. */
export function again(list, every = EVERY) {
  let timer;
  return async function refresh() {
    clearTimeout(timer);
    try {
      await list();
      timer = setTimeout(refresh, every);
    } catch (error) {
      // A server that has nothing of the kind has no such resource, and others say why not.
      if (error.passes) timer = setTimeout(refresh, every);
    }
  };
}
