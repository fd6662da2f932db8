// Counts what one subscriber received: every message of every publisher once, each publisher's in order.

import assert from "node:assert/strict";

export class Tally {
    constructor(name, sources) {
        this.name = name;
        this.seen = new Map(sources.map((source) => [source, 0]));
        this.faults = [];
    }

    /** Takes one message `{from, n}`; `n` counts from 1 per publisher. */
    take({ from, n }) {
        const last = this.seen.get(from);
        if (n !== last + 1 && this.faults.length < 10) {
            this.faults.push(`${from}: ${n} after ${last}`);
        }
        this.seen.set(from, n);
    }

    total() {
        return [...this.seen.values()].reduce((sum, n) => sum + n, 0);
    }

    check(expected) {
        assert.deepEqual(this.faults, [], this.name);
        for (const [source, n] of this.seen) {
            assert.equal(n, expected, `${this.name}: last message from ${source}`);
        }
    }
}
