"""The compiler: turns loops in plain Python into machine code. Only this module imports numba.

``compiled`` does so at the first use of a function, which takes seconds, once: numba caches the code. So importing the
package, or scoring a few rows, does not wait for a compiler. All code releases the GIL.

A file of loops has a dictionary ``FAST``: which freedoms of floating point each of its functions may take.
"""

import gc
import sys
import warnings
from functools import partial, wraps
from pickle import UnpicklingError
from threading import RLock
from types import FunctionType
from weakref import WeakKeyDictionary

FEW, MANY = 50_000, 1_000_000  # us
OPTIONS = {"nogil": True, "error_model": "numpy"}

_machine_code, _callable, _by_address, _worked = {}, set(), {}, {}
_calls, _lock = WeakKeyDictionary(), RLock()


def compiled(function):
    """Return the function as machine code, with the functions of its file that it calls."""
    with _lock:  # two threads may ask for the first time
        if function not in _machine_code:
            _machine_code[function] = _compiled_when_called(function)
    return _machine_code[function]


def _compiled_when_called(function):
    from numba import njit

    _make_callable(function)
    options = dict(OPTIONS, fastmath=_fast(function), no_cfunc_wrapper=True)
    try:
        code = njit(cache=True, **options)(function)
        code._cache = _Cache(code._cache)
    except RuntimeError:  # no place for the cache, neither beside the source nor in the user's folder
        code = njit(**options)(function)
    code.compile = partial(_without_collections, code.compile)
    return code


def _without_collections(compile_for, types):
    """Compile, and collect no garbage meanwhile, which would take a sixth of the time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        return compile_for(types)
    finally:
        if collects:
            gc.enable()


class _Cache:
    """numba's cache of one function; if a file of it cannot be read or written, the code is compiled in each process.

    The disk may be full or read-only, or a quota reached: the code itself is in memory by then, and can be used.
    """

    warned = told = False

    def __init__(self, cache):
        self.cache = cache

    def __getattr__(self, name):
        return getattr(self.cache, name)

    def load_overload(self, *what):
        """Return machine code that was saved, or None; a terminal is told that it will be compiled."""
        found = self._unless_broken(self.cache.load_overload, what)
        if found is None and not _Cache.told and sys.stderr.isatty():
            _Cache.told = True
            print("nmf_features is compiled for this machine: once, for some seconds.", file=sys.stderr)
        return found

    def save_overload(self, types, result):
        """Save machine code, and what has to be at its address before it is loaded."""
        result.reload_init.extend(_calls.get(result.library, ()))
        self._unless_broken(self.cache.save_overload, (types, result))

    def _unless_broken(self, method, what):
        try:
            return method(*what)
        except (OSError, EOFError, UnpicklingError) as error:
            if not _Cache.warned:  # once in a process
                _Cache.warned = True
                warnings.warn(
                    f"numba cannot keep compiled code in {self.cache.cache_path} ({error}). Every process compiles it "
                    "anew, which takes seconds. Make room there, or set the environment variable NUMBA_CACHE_DIR to "
                    "another folder.",
                    stacklevel=2,
                )
            return None


def _make_callable(function):
    """Make what a function of its file calls available to machine code, by its address.

    So a callee is compiled by itself, once for each kind of arguments, and never inlined: that would take longer at
    every place of a call, and code that was just compiled could use other copies, with other bits, than code from the
    cache. For a version of numba that lacks what this needs, callees are always inlined.
    """
    from numba.core import types
    from numba.extending import lower_builtin, register_jitable, type_callable

    for called in map(function.__globals__.get, function.__code__.co_names):
        if isinstance(called, FunctionType) and called not in _callable:
            _callable.add(called)
            if _knows_addresses():
                type_callable(called)(partial(_typer_of, called))
                lower_builtin(called, types.VarArg(types.Any))(partial(_write_call, called))
            else:
                _make_callable(called)
                register_jitable(**OPTIONS, forceinline=True, fastmath=_fast(called))(called)


def _knows_addresses():
    """Whether this version of numba has what calls by address need, which is not all public."""
    from numba.core import cgutils, compiler
    from numba.core.registry import cpu_target

    context = cpu_target.target_context
    library = context.codegen().create_library("nmf_features")
    needed = (
        (cgutils, "get_or_insert_function"),
        (context, "active_code_library"),
        (context.call_conv, "call_function"),
        (context.call_conv, "get_function_type"),
        (context.call_conv, "return_status_propagate"),
        (library, "get_pointer_to_function"),
        (compiler.CompileResult, "reload_init"),
    )
    return all(name in dir(of) for of, name in needed)


def _typer_of(called, context):
    """Return what tells the compiler the type of a result."""
    from numba.core.types import unliteral

    @wraps(called)  # it shows the arguments
    def typer(*types):
        return _at_its_address(called, tuple(map(unliteral, types))).signature

    return typer


def _at_its_address(called, types):
    """Compile a function for arguments of these types, tell the linker where it is, and return what numba knows."""
    from llvmlite.binding import add_symbol

    name = _name_of(called, types)
    if name not in _by_address:
        code = compiled(called)
        code.compile(types)
        found = code.overloads[types]
        add_symbol(name, found.library.get_pointer_to_function(found.fndesc.llvm_func_name))
        _by_address[name] = found  # it stays in memory
    return _by_address[name]


def _name_of(called, types):
    return f"{called.__module__}.{called.__qualname__}{types}"


def _write_call(called, context, builder, signature, values):
    """Write a call into the code of the caller."""
    from numba.core import cgutils

    result, types = signature.return_type, signature.args
    function_type = context.call_conv.get_function_type(result, types)
    outside = cgutils.get_or_insert_function(builder.module, function_type, _name_of(called, types))
    status, value = context.call_conv.call_function(builder, outside, result, types, values)
    with builder.if_then(status.is_error, likely=False):  # no memory
        context.call_conv.return_status_propagate(builder, status)
    _calls.setdefault(context.active_code_library, []).append(partial(_at_its_address, called, types))
    return value


def compiled_if_worth(function, work):
    """Return machine code if it is there or ``work`` (about 1 us each) would take longer, else the function itself.

    Work that is little each time adds up, once the compiler is loaded. The function has to give the bits of its code.
    """
    if function in _machine_code or work > FEW:
        return compiled(function)
    if not _machine_code:
        return function
    saved = function not in _worked and _is_saved(function)
    _worked[function] = _worked.get(function, 0) + work
    return compiled(function) if saved or _worked[function] > MANY else function


def _is_saved(function):
    """Whether numba's cache has code of a function, as far as can be seen."""
    from numba.core.caching import FunctionCache

    try:
        return bool(FunctionCache(function)._cache_file._load_index())
    except (AttributeError, RuntimeError, OSError, EOFError, UnpicklingError):  # another numba; no cache; a broken one
        return False


def _fast(function):
    """Return the freedoms that a function may take."""
    return function.__globals__.get("FAST", {}).get(function, False)
