# SPDX-License-Identifier: Apache-2.0
"""A Containerfile as a list of stages, and what finds fault. No engine: only what can be read."""
import shlex
import subprocess
import sys

faults = []


def bad(text):
    faults.append(text)


def end():
    """Says all that was found, and leaves."""
    for text in faults:
        print(text, file=sys.stderr)
    sys.exit(1 if faults else 0)


def settle():
    """What comes next relies on what was checked."""
    if faults:
        end()


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


class Stage:
    def __init__(self, base, name):
        self.base, self.name = base, name
        self.steps = []  # (instruction, rest of the line)

    def of(self, word):
        return [rest for instruction, rest in self.steps if instruction == word]

    def packages(self):
        """What its RUN lines install."""
        found = []
        for command in self.of("RUN"):
            words = shlex.split(command.replace("&&", " ; ").replace(";", " ; "))
            while "install" in words and "apt-get" in words:
                words = words[words.index("install") + 1 :]
                until = words.index(";") if ";" in words else len(words)
                found += [w for w in words[:until] if not w.startswith("-")]
                words = words[until:]
        return set(found)

    def copies(self):
        """(stage or None, [source...], target)"""
        for rest in self.of("COPY"):
            words = rest.split()
            stage = None
            if words[0].startswith("--from="):
                stage = words.pop(0)[len("--from=") :]
            yield stage, words[:-1], words[-1]


def read(path):
    """{name: Stage}, in order."""
    stages = {}
    with open(path, encoding="utf-8") as f:
        text = "".join(line for line in f if not line.startswith("#"))
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            base, _, name = rest.split()
            stages[name] = Stage(base, name)
        else:
            list(stages.values())[-1].steps.append((word, " ".join(rest.split())))
    return stages
