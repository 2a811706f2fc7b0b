"""Every failure that a user can cause or cure, as one tree of classes. The command line prints each as a line `error:`, and its
hint as a line `hint:`.

HeadwaterError
├── InputError            an input is wrong: correct it and run again
│   ├── CorpusError       a corpus or query file
│   ├── ModelError        a model or tokenizer
│   ├── SettingsError     an option or a method's setting
│   └── DataError         numbers that cannot be used: NaN, Inf, wrong shapes
├── StoreError            the store on disk
│   ├── StoreMissing      nothing there, or no headwater store
│   ├── StoreMismatch     made with another model, corpus, settings or format
│   ├── StoreBusy         another process writes to it
│   ├── StoreDamaged      bytes are missing or differ from their checksum, or a record was edited
│   └── StoreFull         no room left on the device
├── PluginError           a method, by its name
│   ├── UnknownMethod
│   ├── BrokenMethod      its import failed, its code failed, or it breaks the contract
│   ├── OutdatedMethod    written for another plugin API
│   └── ClashingMethods   two distributions offer one name
└── ResourceError         the machine
    ├── BudgetError       the memory plan exceeds the budget
    └── DeviceError       the device asked for is not there

Knows nothing of what raises them.
"""


class HeadwaterError(Exception):
    """Root of everything headwater raises on purpose. Its text says what is wrong, in one line."""

    hint: str = ""
    """What to do about it, such as a command to run; a traceback shows it below the text. Empty if there is nothing to say."""

    def __init__(self, *arguments: object, hint: str = "") -> None:
        super().__init__(*arguments)
        if hint:
            self.hint = hint
            self.add_note(f"hint: {hint}")


class InputError(HeadwaterError, ValueError):
    """An input is wrong."""


class CorpusError(InputError):
    """A corpus or query file cannot be used; the message names file and line."""


class ModelError(InputError):
    """A model or tokenizer cannot be used."""


class SettingsError(InputError):
    """An option or a method's setting is unknown or out of range."""


class DataError(InputError):
    """Numbers that cannot be used: not finite, or of the wrong shape."""


class StoreError(HeadwaterError):
    """Something about the store on disk."""


class StoreMissing(StoreError, FileNotFoundError):
    """There is no headwater store at the path, or the store lacks what was asked for."""


class StoreMismatch(StoreError, ValueError):
    """The store was made with another model, corpus, settings or format than asked for; the message lists only the
    differences.
    """


class StoreBusy(StoreError, BlockingIOError):
    """Another process writes to the same group, fits the same method, or upgrades the store."""


class StoreDamaged(StoreError, OSError):
    """Bytes are missing or differ from their checksum, or a record of the store was edited."""

    why: str = ""
    """What is wrong with the chunk, without its name."""


class StoreFull(StoreError, OSError):
    """No room left on the device; what was committed stays."""


class PluginError(HeadwaterError):
    """Something about an attribution method found by name."""


class UnknownMethod(PluginError, LookupError):
    """No installed distribution offers this name."""


class BrokenMethod(PluginError, ImportError):
    """The method cannot be imported, fails, or does not keep the contract."""


class OutdatedMethod(PluginError, ImportError):
    """The method was written for another number of the plugin API."""


class ClashingMethods(PluginError, ImportError):
    """Two installed distributions offer the same name."""


class ResourceError(HeadwaterError):
    """The machine cannot do what was asked."""


class BudgetError(ResourceError, MemoryError):
    """The memory plan exceeds the budget."""


class DeviceError(ResourceError, RuntimeError):
    """The device asked for is not there."""
