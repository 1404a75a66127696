"""demur records, step by step, how a language model decides to refuse.

Prompts, a model and a sampler make a recording; anchors turn it into the signal; rates and guards read the
signal. The public names stand in `__init__.pyi`; each loads on first use, so importing demur costs nothing.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
