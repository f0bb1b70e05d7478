__version__ = "0.1.0"


def __getattr__(name):
    "Import `load_encoder` when it is first asked for: `import fima` alone stays light."
    if name != "load_encoder":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return import_module("fima.training.weights").load_encoder
