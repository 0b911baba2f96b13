"""Generators in processes of their own, for libraries that end their process when they fail."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any


def gather(generator: Callable[..., Iterable], arguments: list[tuple]) -> Iterator[Any]:
    """Run a generator on each tuple of arguments, in a process each, and yield all they yield.

    The processes end with the loop over this, however it ends, and if this process is killed, as
    soon as they have something to yield.

    Args:
      generator: a function of a module, not of a notebook; what it yields is pickled.
      arguments: one tuple a process.

    Raises:
      ChildProcessError: if a process ended unexpectedly.
      Exception: what a generator raises.
    """
    context, processes = multiprocessing.get_context("spawn"), {}
    try:
        for args in arguments:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_run, args=(generator, args, sender), daemon=True)
            process.start()
            processes[receiver] = process
            # The process alone holds it now, so that its end is seen here.
            sender.close()
        yield from _messages(processes)
    finally:
        for process in processes.values():
            process.terminate()
            process.join()


def _messages(processes: dict[Connection, Any]) -> Iterator[Any]:
    left = set(processes)
    while left:
        for receiver in wait(list(left)):
            try:
                message, error = receiver.recv()
            except EOFError:
                left.remove(receiver)
                processes[receiver].join()
                if code := processes[receiver].exitcode:
                    raise ChildProcessError(
                        f"a process ended with exit code {code}; what it said is above. What it "
                        "had finished is kept, and the same command goes on from there"
                    ) from None
                continue
            if error is not None:
                raise error
            yield message


def _run(generator: Callable[..., Iterable], args: tuple, sender: Connection) -> None:
    # Ctrl-C reaches all processes of a terminal; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for message in generator(*args):
            sender.send((message, None))
    except BrokenPipeError:
        return  # nobody listens any more
    except (ValueError, OSError) as error:
        sender.send((None, error))
