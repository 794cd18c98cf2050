#!/usr/bin/env python3
"""Runs every shell block of README.md and demo/ word for word, in order, in a copy of the project.

    tests/readme/run.py [--binary target/debug/vulpes] [DOCUMENT ...]

A block is run in its document's own shell, stops at the first line that fails, and may take a minute. What a reader does
otherwise stands in a comment above the block, which no renderer shows:

    <!-- run: KIND; expect TEXT; meanwhile TEXT; then TEXT; within 90s -->

KIND is one of
    shell        the default
    terminals    each line in a terminal of its own; those that do not end by themselves get Ctrl-C when the block is over
    in turn      the same, but a line that does not end gets Ctrl-C before the next one is typed
    keep         as `terminals`, but what runs goes on until the document ends, or a block says `fresh`
    file NAME    not run, but saved under this name
    skip: WHY    not run
`expect` names what the block has to print (`expect line`: a whole line), `meanwhile` what those that were kept have to print from its
beginning on, and `then` what they have to once it is over. `fresh` stops
what was kept before.

Two things are not word for word: `cargo run --release --` is the binary that is there, and Node 20 is given the option that the
text says it needs. A shell block without any of this, or one that is indented instead of fenced, fails: nothing goes untested.
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ["README.md", "demo/README.md", "demo/speed/README.md", "jepsen/README.md", "tests/clients/README.md"]

# How long a block may take unless it says otherwise.
LIMIT = 60
# A line that has not ended by then is one that goes on.
GOES_ON = 3
# How long something may take to end that was told to.
STOP = 25

CARGO = """#!/bin/sh
# What is built is built before; see tests/readme/run.py.
case "$1 $2 $3" in
    "run --release --") shift 3; exec target/release/vulpes "$@" ;;
esac
echo "cargo $*: nothing is built here" >&2
exit 1
"""


class Failed(Exception):
    pass


class Block:
    def __init__(self, document, line, language, note, text):
        self.where = f"{document}:{line}"
        self.language, self.text = language, text
        self.kind, self.limit, self.fresh = "shell", LIMIT, False
        self.expect, self.meanwhile, self.then = [], [], []
        if note is None:
            if language == "js":
                raise Failed(f"{self.where}: a js block has to be saved as a file")
            return
        if note.startswith("skip:"):
            self.kind = note
            return
        for at, part in enumerate(part.strip() for part in note.split(";")):
            word, _, rest = part.partition(" ")
            if word == "expect":
                self.expect.append(rest)
            elif word == "meanwhile":
                self.meanwhile.append(rest)
            elif word == "then":
                self.then.append(rest)
            elif word == "within":
                self.limit = int(rest.rstrip("s"))
            elif part == "fresh":
                self.fresh = True
            elif at == 0 and (part in ("shell", "terminals", "in turn", "keep") or word == "file"):
                self.kind = part
            else:
                raise Failed(f"{self.where}: what does {part!r} mean?")

    def lines(self):
        """What is typed, one command a line; a line that ends with a backslash goes on."""
        lines = self.text.replace("\\\n", "").splitlines()
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def blocks_of(document):
    blocks, note, inside = [], None, None
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        if inside is not None:
            language, begun, text = inside
            if line.startswith("```"):
                if language in ("sh", "js"):
                    blocks.append(Block(document, begun, language, note, "\n".join(text) + "\n"))
                inside = note = None
            else:
                text.append(line)
        elif line.startswith("```"):
            inside = (line[3:].strip(), number, [])
        elif found := re.fullmatch(r"<!-- run: (.*) -->", line):
            note = found[1]
        elif re.match(r" {4,}\S", line):
            raise Failed(f"{document}:{number}: an indented block; fence it, so that it can be run")
    return blocks


class Output:
    """What a process has printed, read as it comes."""

    def __init__(self, process):
        self.lines, self.lock = [], threading.Lock()
        self.thread = threading.Thread(target=self.read, args=(process.stdout,), daemon=True)
        self.thread.start()

    def read(self, stream):
        for line in stream:
            with self.lock:
                self.lines.append(line.rstrip("\n"))

    def since(self, at):
        with self.lock:
            return self.lines[at:]

    def count(self):
        with self.lock:
            return len(self.lines)


class Terminal:
    def __init__(self, command, place):
        self.command = command
        self.process = subprocess.Popen(
            ["bash", "-c", command], cwd=place.folder, env=place.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.output = Output(self.process)

    def ended(self, limit):
        try:
            self.process.wait(limit)
            self.output.thread.join(5)
            return True
        except subprocess.TimeoutExpired:
            return False

    def stop(self):
        for sign in (signal.SIGINT, signal.SIGTERM):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
                if self.ended(STOP):
                    break
        end_session(self.process.pid)
        return self.process.poll() is not None


def end_session(session):
    """Ends what is left of a terminal, as closing its window does."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if os.getsid(int(entry.name)) == session:
                    os.kill(int(entry.name), signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass


class Shell:
    END = "end of block"

    def __init__(self, place):
        self.place = place
        self.process = subprocess.Popen(
            ["bash"], cwd=place.folder, env=place.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.output = Output(self.process)
        # Jobs have numbers, as in a terminal.
        self.type("set -m -o pipefail")

    def type(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def run(self, block):
        script = self.place.folder / ".block"
        script.write_text(block.text)
        at = self.output.count()
        self.type(f"trap 'echo \"failed: $BASH_COMMAND\"' ERR; set -e; source .block </dev/null; "
                  f"set +e; trap - ERR; echo; echo {self.END}")
        deadline = time.monotonic() + block.limit
        while self.END not in self.output.since(at):
            if self.process.poll() is not None:
                self.output.thread.join(2)
                return self.output.since(at), "a line failed"
            if time.monotonic() > deadline:
                return self.output.since(at), f"it takes longer than {block.limit} s"
            time.sleep(0.05)
        return [line for line in self.output.since(at) if line != self.END], None


class Place:
    """A copy of what the project's repository has, with a binary."""

    def __init__(self, binary):
        self.folder = Path(tempfile.mkdtemp(prefix="vulpes-readme-"))
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split("\0")):
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            # A file that nobody tracks may be gone again, as what a test puts there.
            with contextlib.suppress(FileNotFoundError):
                shutil.copy2(ROOT / name, self.folder / name)
        (self.folder / "target/release").mkdir(parents=True)
        (self.folder / "target/release/vulpes").symlink_to(binary)
        modules = ROOT / "tests/clients/node_modules"
        if modules.is_dir():
            (self.folder / "tests/clients/node_modules").symlink_to(modules)
        tools = self.folder / ".tools"
        tools.mkdir()
        (tools / "cargo").write_text(CARGO)
        (tools / "cargo").chmod(0o755)
        self.environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}", "NODE_PATH": str(modules), "NO_COLOR": "1"}
        self.environment.pop("VULPES_LOG", None)
        version = subprocess.run(["node", "--version"], capture_output=True, text=True).stdout
        if version.startswith("v20."):
            self.environment["NODE_OPTIONS"] = "--experimental-websocket --no-warnings"


class Document:
    def __init__(self, name, place):
        self.name, self.place = name, place
        self.kept, self.terminals = [], []
        self.shell = Shell(place)

    def run(self):
        try:
            for block in blocks_of(self.name):
                self.block(block)
        finally:
            self.stop(self.terminals)
            self.stop(self.kept)
            end_session(self.shell.process.pid)

    def block(self, block):
        begun = time.monotonic()
        print(f"--- {block.where}: {block.kind}", flush=True)
        if block.fresh:
            self.stop(self.kept)
        before = [(terminal, terminal.output.count()) for terminal in self.kept]
        if block.kind.startswith("skip:"):
            return
        if block.kind.startswith("file "):
            (self.place.folder / block.kind[5:]).write_text(block.text)
            return
        if block.kind == "shell":
            printed, failure = self.shell.run(block)
            self.check(block, failure is None, failure, lambda: printed)
            wait = 0
        else:
            printed = self.type(block)
            wait = block.limit
        self.wait_for(block, block.expect, printed if callable(printed) else (lambda: printed), wait)
        after = [(terminal, terminal.output.count()) for terminal, _ in before]
        for wanted, since in ((block.meanwhile, before), (block.then, after)):
            self.wait_for(block, wanted, lambda: [line for t, at in since for line in t.output.since(at)], block.limit)
        if block.kind != "keep":
            self.stop(self.terminals)
        for line in (printed() if callable(printed) else printed)[-12:]:
            print(f"    {line}")
        print(f"    ({time.monotonic() - begun:.1f} s)", flush=True)

    def type(self, block):
        started = []
        for line in block.lines():
            terminal = Terminal(line, self.place)
            started.append(terminal)
            (self.kept if block.kind == "keep" else self.terminals).append(terminal)
            if terminal.ended(GOES_ON):
                code = terminal.process.returncode
                self.check(block, code == 0, f"{line}: exit code {code}", lambda: terminal.output.since(0))
            elif block.kind == "in turn":
                self.check(block, terminal.stop(), f"{line}: does not end", lambda: terminal.output.since(0))
        return lambda: [line for terminal in started for line in terminal.output.since(0)]

    def wait_for(self, block, wanted, printed, limit):
        deadline = time.monotonic() + limit
        def is_there(text):
            whole = text.removeprefix("line ")
            return any(line.strip() == whole if whole != text else text in line for line in printed())

        while missing := [text for text in wanted if not is_there(text)]:
            self.check(block, time.monotonic() < deadline, f"nothing was printed with {missing[0]!r}", printed)
            time.sleep(0.1)

    def check(self, block, good, failure, printed):
        if not good:
            for line in printed()[-60:]:
                print(f"    {line}")
            raise Failed(f"{block.where}: {failure}\n{block.text}")

    def stop(self, terminals):
        while terminals:
            terminals.pop().stop()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", type=Path, default=ROOT / "target/debug/vulpes")
    parser.add_argument("--keep", action="store_true", help="leave the copy of the project where it is")
    parser.add_argument("documents", nargs="*", default=DOCUMENTS)
    arguments = parser.parse_args()
    place = Place(arguments.binary.resolve(strict=True))
    try:
        for name in arguments.documents:
            Document(name, place).run()
    except Failed as failure:
        print(f"\n{failure}", file=sys.stderr)
        for log in sorted(place.folder.glob("**/*.log")):
            print(f"--- {log.relative_to(place.folder)}", *log.read_text(errors="replace").splitlines()[-8:], sep="\n    ")
        return 1
    finally:
        if not arguments.keep:
            shutil.rmtree(place.folder, ignore_errors=True)
    print("every block ran as it stands")
    return 0


if __name__ == "__main__":
    sys.exit(main())
