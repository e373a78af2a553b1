"""A time limit around a run ends it with SIGTERM: fixtures then end as they do at ctrl-C. What a shell starts in the background ignores ctrl-C, and so would
what it starts: the programs under test."""
import signal


def interrupted(_signo, _frame):
    for again in (signal.SIGTERM, signal.SIGINT):
        signal.signal(again, signal.SIG_IGN)
    raise KeyboardInterrupt


def take_sigterm():
    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, signal.default_int_handler)
