// Names with slashes as a tree.

/** `{ name, path, leaf, children }` of a list of leaves with a `channel`; a node may be both a channel and a folder. */
export function treeOf(leaves) {
  const root = node("", undefined);
  for (const leaf of leaves) {
    let at = root;
    for (const segment of leaf.channel.split("/")) {
      const path = at === root ? segment : `${at.path}/${segment}`;
      if (!at.children.has(segment)) at.children.set(segment, node(segment, path));
      at = at.children.get(segment);
    }
    at.leaf = leaf;
  }
  return root;
}

function node(name, path) {
  return { name, path, leaf: undefined, children: new Map() };
}

/** How many channels are at a node and below it. */
export function size({ leaf, children }) {
  let all = leaf ? 1 : 0;
  for (const child of children.values()) all += size(child);
  return all;
}
