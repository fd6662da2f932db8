"""`scripts/instructions` with counts that were made up: a growth fails, whatever else is said passes.

python3 -m unittest discover -s benches/instructions
"""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from bounds import Bounds
from rows import all_rows

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "instructions"
NAMES = [row.name for row in all_rows()]


class Judging(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.bounds = self.write("bounds.txt", dict.fromkeys(NAMES, 1000))

    def write(self, name, counts, compiler="1.0.0 abc here"):
        path = Path(self.folder.name) / name
        Bounds(compiler, counts).write(path)
        return path

    def judge(self, *arguments, compiler="1.0.0 abc here", **changed):
        """The exit code and what was printed, with a count of 1,000 for each row besides those that changed."""
        changed = {name.replace("_", "-"): count for name, count in changed.items()}
        counts = self.write("counts.txt", dict.fromkeys(NAMES, 1000) | changed, compiler)
        command = [sys.executable, str(SCRIPT), f"--counts={counts}", f"--bounds={self.bounds}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    def test_counts_within_their_bounds_pass(self):
        code, text = self.judge(sse_burst=1050, match=951)
        self.assertEqual((code, text.splitlines()[-1]), (0, f"{len(NAMES)} passed, 0 failed"), text)

    def test_growth_by_more_than_five_percent_fails(self):
        code, text = self.judge(sse_burst=1051, match=900)
        self.assertEqual((code, text.splitlines()[-1]), (1, f"{len(NAMES) - 1} passed, 1 failed"), text)
        self.assertRegex(text, r"sse-burst .* 1\.051 +GREW")

    def test_a_shrunk_count_passes_and_is_told(self):
        code, text = self.judge(match=949)
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"match .* 0\.949 +shrank .* move the bound")

    def test_another_compiler_is_told_and_fails_nothing(self):
        code, text = self.judge(compiler="2.0.0 def here", match=2000)
        self.assertEqual(code, 0, text)
        self.assertIn("NOT JUDGED", text)
        self.assertRegex(text, r"match .* 2\.000 +GREW")

    def test_a_row_without_a_bound_and_a_bound_without_a_row_fail(self):
        self.bounds = self.write("bounds.txt", dict.fromkeys(NAMES[1:], 1000))
        code, text = self.judge()
        self.assertEqual(code, 1, text)
        self.assertIn("has no bound", text)
        self.bounds = self.write("bounds.txt", dict.fromkeys([*NAMES, "gone"], 1000))
        code, text = self.judge()
        self.assertEqual(code, 1, text)
        self.assertIn("bounds without a row: gone", text)

    def test_one_row_is_judged_and_recorded_alone(self):
        self.assertEqual(self.judge("match", sse_burst=2000)[0], 0)
        code, text = self.judge("--record", "match", match=1500, sse_burst=2000)
        self.assertEqual(code, 0, text)
        self.assertEqual(Bounds.read(self.bounds).counts, dict.fromkeys(NAMES, 1000) | {"match": 1500})
        self.assertEqual(self.judge(match=1500)[0], 0)
        self.assertEqual(self.judge(match=1600)[0], 1)

    def test_what_is_not_recorded_anew_stays_as_it_is_written(self):
        before = self.bounds.read_text().splitlines()
        self.judge("--record", "sse-burst", sse_burst=2000)
        changed = [(one, other) for one, other in zip(before, self.bounds.read_text().splitlines()) if one != other]
        self.assertEqual([one.split() for _, one in changed], [["sse-burst", "2000"]])

    def test_bounds_of_two_compilers_do_not_mix(self):
        code, text = self.judge("--record", "match", compiler="2.0.0 def here")
        self.assertEqual(code, 1, text)
        code, text = self.judge("--record", compiler="2.0.0 def here")
        self.assertEqual(code, 0, text)
        self.assertEqual(Bounds.read(self.bounds).compiler, "2.0.0 def here")

    def test_the_bounds_of_the_repository_are_those_of_the_rows(self):
        recorded = Bounds.read(Path(__file__).with_name("bounds.txt"))
        self.assertEqual(list(recorded.counts), NAMES)
        self.assertTrue(recorded.compiler)


if __name__ == "__main__":
    unittest.main()
