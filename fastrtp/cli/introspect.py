"""`fastrtp prog|map|link|btf`: what is in a kernel, in bpftool's words and with its JSON keys.

The words after the noun are bpftool's: `show`, `list`, `dump xlated id 3 linum`, `dump id 2 format c`, `pin id 1 /sys/fs/bpf/p`.
They are answered by the same system calls that bpftool makes. Here: the grammar that the nouns share, and the commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.objects import read_spec, tell_skipped
from fastrtp.cli.setup import Setup, setup_options, setup_params
from fastrtp.cli.tracepoints import kernel_types
from fastrtp.errors import BpfError, ReplayError

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

NOUNS = ("prog", "map", "link", "btf")
_HANDLES = {"prog": ("id", "pinned", "tag", "name"), "map": ("id", "pinned", "name"), "link": ("id", "pinned")}
_FILES = {"prog": "anon_inode:bpf-prog", "map": "anon_inode:bpf-map", "link": "anon_inode:bpf_link"}
_JSON, _BPFFS = ("-j", "--json", "-p", "--pretty"), ("-f", "--bpffs")


class Words:
    """The words that are left of a command, taken from the front."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    def __len__(self) -> int:
        return len(self._words)

    def take(self, what: str, among: Sequence[str] = ()) -> str:
        """The next word. UsageError when there is none, or one that is not `among` these (bpftool lets words be cut short)."""
        if not self._words:
            raise click.UsageError(f"{what} is missing" + (f", one of: {', '.join(among)}" if among else ""))
        word = self._words.pop(0)
        if not among:
            return word
        found = [name for name in among if name == word] or [name for name in among if name.startswith(word)]
        if len(found) != 1:
            raise click.UsageError(f"{what} is one of {', '.join(among)}, not {word!r}")
        return found[0]

    def give_back(self, word: str) -> None:
        """The next word again."""
        self._words.insert(0, word)

    def number(self, what: str) -> int:
        """The next word as an integer."""
        word = self.take(what)
        try:
            return int(word, 0)
        except ValueError:
            raise click.UsageError(f"{what} is a number, not {word!r}") from None

    def end(self) -> None:
        """UsageError when words are left."""
        if self._words:
            raise click.UsageError(f"nothing known about {' '.join(self._words)!r}")


@dataclass
class Answer:
    """What a command found: `rows` for JSON, `text` for people."""

    rows: Any
    text: str


Verb = Callable[["Kernel", Words, bool], Answer]


def check_words(lines: Sequence[str]) -> None:
    """The beginnings of commands that are to be run later make sense. UsageError."""
    for line in lines:
        left = Words([word for word in _split(line) if word not in (*_BPFFS, *_JSON)])
        noun = left.take("noun", NOUNS)
        if left:
            left.take(f"what to do with a {noun}", list(_verbs(noun)))


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise click.UsageError(f"{line!r}: {str(error).lower()}") from None


def run_words(kernel: Kernel, line: str | Sequence[str]) -> Answer:
    """Answer one command, `prog show` and the like. UsageError, BpfError."""
    words = _split(line) if isinstance(line, str) else list(line)
    bpffs = any(word in _BPFFS for word in words)
    left = Words([word for word in words if word not in (*_BPFFS, *_JSON)])
    noun = left.take("noun", NOUNS)
    verbs = _verbs(noun)
    verb = left.take(f"what to do with a {noun}", list(verbs)) if left else "show"
    return verbs[verb](kernel, left, bpffs)


def stand_alone(noun: str, words: Sequence[str]) -> Answer | None:
    """The answer to words that ask no kernel, None for others. UsageError."""
    if noun != "btf":
        return None
    from fastrtp.cli.introspect_btf import dump_file

    return dump_file(Words(words))


def _verbs(noun: str) -> dict[str, Verb]:
    """Verb -> function; a noun's module is imported when it is asked for."""
    if noun == "prog":
        from fastrtp.cli import introspect_prog

        return introspect_prog.VERBS
    if noun == "map":
        from fastrtp.cli import introspect_elem, introspect_map

        return introspect_map.VERBS | introspect_elem.VERBS
    if noun == "link":
        from fastrtp.cli import introspect_link

        return introspect_link.VERBS
    from fastrtp.cli import introspect_btf

    return introspect_btf.VERBS


def as_text(answer: Answer, form: str) -> str:
    """An answer as bpftool prints it: "plain", "json" (one line) or "pretty"."""
    import json

    if form == "plain":
        return answer.text
    return json.dumps(answer.rows, ensure_ascii=False, indent=4 if form == "pretty" else None,
                      separators=None if form == "pretty" else (",", ":"))  # fmt: skip


def _command(noun: str, what: str) -> click.Command:
    def callback(words: tuple[str, ...], objects: tuple[Path, ...], session: Path | None, attach: bool, json: bool, pretty: bool,
                 bpffs: bool, btf: str | None, setup: Setup) -> None:  # fmt: skip
        from fastrtp.cli.session import restore
        from fastrtp.cli.terminal import need_native
        from fastrtp.kernel import Kernel

        form = "pretty" if pretty else "json" if json else "plain"
        answer = stand_alone(noun, words)
        if answer is not None:
            click.echo(as_text(answer, form))
            return
        if session is not None and (objects or attach or btf):
            raise click.UsageError("a session brings its object, types and links: no -o, --attach or --btf with it")
        if setup and len(objects) != 1:
            raise click.UsageError("--set, --max-entries, --program and --kconfig are for one object: give one -o")
        read = [(path, read_spec(path, lambda: kernel_types(btf))[0]) for path in objects]
        need_native()
        with restore(session) if session is not None else Kernel(btf, version=setup.version) as kernel:
            for path, data in read:
                loaded = setup.load(kernel, data, path.name, twins=attach)
                if not setup.programs:
                    tell_skipped(loaded.skipped, "not loaded")
                if attach:
                    if not any(program.auto_attachable for program in loaded.programs.values()):
                        raise ReplayError(f"{path} has no program that names its tracepoint")
                    loaded.attach()
            answer = run_words(kernel, [noun, *words, *(["-f"] if bpffs else [])])
        text = as_text(answer, form)
        if text:
            click.echo(text)

    params: list[click.Parameter] = [
        click.Argument(["words"], nargs=-1, metavar="[show|list|dump|pin|...] [WORDS]..."),
        click.Option(["--object", "-o", "objects"], multiple=True, metavar="OBJ", type=click.Path(path_type=Path),
                     help="Load this object first; may be given several times."),
        click.Option(["--session", "-s"], metavar="FILE", type=click.Path(path_type=Path),
                     help="Ask what a replay left behind: a file of fastrtp replay --save."),
        click.Option(["--attach"], is_flag=True, help="Attach its programs, too."),
        click.Option(["--json", "-j"], is_flag=True, help="JSON, with the keys of bpftool."),
        click.Option(["--pretty", "-p"], is_flag=True, help="JSON in several lines."),
        click.Option(["--bpffs", "-f"], is_flag=True, help="Show pinned paths."),
        click.Option(["--btf"], metavar="host|PATH", help="The kernel's types, instead of those that the package ships."),
    ]  # fmt: skip
    text = f"""{what}

    The words are those of bpftool: show, list, dump, pin. For a kernel in which programs ran: fastrtp replay OBJ RECORDING
    --then '{noun} show', or --save SESSION, then fastrtp {noun} -s SESSION show."""
    with_setup = setup_options(callback)
    params += setup_params(with_setup)
    return click.Command(noun, params=params, callback=with_setup, help=text, short_help=what)


prog_command = _command("prog", "Show and dump loaded programs, as bpftool prog does.")
map_command = _command("map", "Show and dump maps, as bpftool map does.")
link_command = _command("link", "Show links, as bpftool link does.")
btf_command = _command("btf", "Show and dump BTF, as bpftool btf does.")


# what the nouns share


def open_ids(kernel: Kernel, noun: str, words: Words, key: Callable[[int], dict[str, Any]]) -> list[int]:
    """Ids of what the words name (`id N`, `name X`, `tag T`, `pinned F`; none: all). BpfError ENOENT.

    `key`: the JSON row of an id, for `name` and `tag`.
    """
    ids = list(kernel.ids(noun))
    if not words:
        return ids
    by = words.take("handle", _HANDLES[noun])
    if by == "id":
        number = words.number("id")
        kernel.close(kernel.fd_by_id(noun, number))
        return [number]
    value = words.take(by)
    if by == "pinned":
        fd = kernel.obj_get(value)
        try:
            found = int(kernel.obj_get_info_by_fd(fd).id)
            if kernel.current.fd_name(fd) != _FILES[noun]:
                raise click.UsageError(f"{value} is not a {noun}")
        finally:
            kernel.close(fd)
        return [found]
    return [number for number in ids if key(number).get(by) == value]


def only_one(ids: list[int], noun: str) -> int:
    """UsageError unless there is exactly one."""
    if len(ids) != 1:
        raise click.UsageError(f"{len(ids)} {noun}s are meant, give the id of one")
    return ids[0]


def fdinfo(kernel: Kernel, fd: int) -> dict[str, str]:
    """/proc/self/fdinfo/<fd>, where bpftool finds memlock and the rest."""
    rows = (line.partition(":\t") for line in kernel.current.fdinfo(fd).splitlines())
    return {name: value for name, _, value in rows}


def holders(kernel: Kernel, noun: str, number: int) -> list[dict[str, Any]]:
    """The processes that have a descriptor of an object."""
    table: Any = getattr(kernel, noun + "s")
    wanted = table.find(number)
    return [
        {"pid": process.pid, "comm": process.comm}
        for process in kernel.processes.values()
        if any(process.files.private_data(fd) is wanted for fd in process.files)
    ]


def holders_text(row: dict[str, Any]) -> str:
    """The line of the processes."""
    named = ",".join(f"{held['comm']}({held['pid']})" for held in row.get("pids", ()))
    return f"\n\tpids {named}" if named else ""


def pinned(kernel: Kernel, noun: str, number: int) -> list[str]:
    """Paths in the BPF file system."""
    table: Any = getattr(kernel, noun + "s")
    wanted = table.find(number)
    return [path for path in kernel.bpffs if kernel.bpffs.get(path) is wanted]


def pin(noun: str) -> Verb:
    """`prog pin PROG FILE`."""

    def verb(kernel: Kernel, words: Words, _bpffs: bool) -> Answer:
        by = words.take("handle", ["id"])
        number = words.number(by)
        path = words.take("path")
        words.end()
        fd = kernel.fd_by_id(noun, number)
        try:
            kernel.obj_pin(path, fd)
        finally:
            kernel.close(fd)
        return Answer(None, "")

    return verb


def no_such(noun: str, why: str) -> BpfError:
    """ENOENT for what is not there."""
    import errno

    return BpfError(errno.ENOENT, f"ENOENT: {noun}: {why}")
