"""numba as far as LLVM IR: the passes that functions over integers need, and no machine code.

numba's own pipeline links every function with all that it calls and compiles the whole of it, before the next function; here a
function is written as IR text once, its callees are names in it, and `build` links and optimises all of them together.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from numba.core import cgutils, funcdesc, lowering
from numba.core.compiler import CompilerBase, compile_result
from numba.core.compiler_machinery import LoweringPass, PassManager, register_pass
from numba.core.typed_passes import IRLegalization, NopythonTypeInference, PreLowerStripPhis
from numba.core.typing.templates import signature
from numba.core.untyped_passes import FixupArgs, IRProcessing, ReconstructSSA, TranslateByteCode


class _OfNumba(NamedTuple):
    """A function of numba's own with all that it calls."""

    text: str
    callees: tuple[Any, ...] = ()


class TextLibrary:
    """What numba lowers into, in place of a library that compiles: it keeps the text."""

    def __init__(self, codegen: Any, name: str) -> None:
        self.codegen = codegen
        self.name = name
        self.text = ""
        self.callees: list[TextLibrary | _OfNumba] = []
        self.recorded_timings: list[Any] = []

    def create_ir_module(self, name: str) -> Any:
        """An empty module for the host."""
        return self.codegen._create_empty_module(name)

    def add_ir_module(self, module: Any) -> None:
        """The lowered function."""
        self.text = cgutils.normalize_ir_text(str(module))

    def add_linking_library(self, library: Any) -> None:
        """A callee, of ours or of numba's own (min, max). They are linked at the end, all at once."""
        if not isinstance(library, TextLibrary):
            library = _OfNumba(str(library._get_module_for_linking()))
        self.callees.append(library)


@register_pass(mutates_CFG=True, analysis_only=False)
class LowerToText(LoweringPass):
    """Typed IR of numba's to LLVM IR as text; callers find the function by its signature, as they would find a compiled one."""

    _name = "fastrtp_lower_to_text"

    def __init__(self) -> None:
        LoweringPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        """Lower one function."""
        context, flags = state.targetctx, state.flags
        fndesc = funcdesc.PythonFunctionDescriptor.from_specialized_function(
            state.func_ir, state.typemap, state.return_type, state.calltypes,
            mangler=context.mangler, inline=flags.forceinline, noalias=flags.noalias, abi_tags=[flags.get_mangle_string()],
        )  # fmt: skip
        library = TextLibrary(context.codegen(), state.func_id.func_qualname)
        with context.push_code_library(library):
            lower = lowering.Lower(context, library, fndesc, state.func_ir, metadata=state.metadata)
            lower.lower()
        entry = _entry_point()
        context.insert_user_function(entry, fndesc, [library])
        state.cr = compile_result(
            typing_context=state.typingctx, target_context=context, entry_point=entry, typing_error=None, type_annotation=None,
            library=library, call_helper=lower.call_helper, signature=signature(state.return_type, *state.args), objectmode=False,
            lifted=(), fndesc=fndesc, environment=lower.env, metadata=state.metadata, reload_init=[],
        )  # fmt: skip
        return True


def _entry_point() -> Callable[..., None]:
    """What stands for the machine code that there is none of: any built-in function, by which numba tells functions apart."""
    return [].append


class IrCompiler(CompilerBase):
    """The pipeline: types, then text."""

    def define_pipelines(self) -> list[Any]:
        """One pipeline; what it cannot type is an error."""
        manager = PassManager("fastrtp_ir")
        for made in (
            TranslateByteCode, FixupArgs, IRProcessing, ReconstructSSA, NopythonTypeInference, PreLowerStripPhis, IRLegalization,
            LowerToText,
        ):  # fmt: skip
            manager.add_pass(made, made.__name__)
        manager.finalize()
        return [manager]


class FunctionText(NamedTuple):
    """A lowered function: its symbol in the text of `library`, and numba's type of its result."""

    symbol: str
    library: TextLibrary
    result: Any


def lowered(dispatcher: Any, parameters: Sequence[Any]) -> FunctionText:
    """A function for parameters of these types of numba's."""
    wanted = tuple(parameters)
    if wanted not in dispatcher.overloads:
        dispatcher.compile(wanted)
    made = dispatcher.overloads[wanted]
    return FunctionText(made.fndesc.mangled_name, made.library, made.signature.return_type)


def texts(functions: Iterable[FunctionText]) -> list[str]:
    """The texts of functions and of all that they call, each once."""
    found: dict[str, None] = {}
    pending: list[TextLibrary | _OfNumba] = [function.library for function in functions]
    while pending:
        library = pending.pop()
        if library.text not in found:
            found[library.text] = None
            pending += library.callees
    return list(found)
