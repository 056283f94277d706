"""Opens a log, appends a batch, closes it, opens it again and reads it back.

    python main.py <seawall.wasm> <folder>
"""

import sys
from itertools import accumulate, pairwise

from wasmtime import Config, Engine, Store, WasiConfig
from wasmtime.component import Component, Linker, Record, Variant


def record(**fields):
    """A record of the contract, whose names have dashes."""
    made = Record()
    for name, value in fields.items():
        setattr(made, name.replace("_", "-"), value)
    return made


class Seawall:
    """The component, with one folder and nothing else."""

    def __init__(self, component, folder):
        engine = Engine(Config())
        self.store = Store(engine)
        wasi = WasiConfig()
        wasi.preopen_dir(folder, "/")
        self.store.set_wasi(wasi)
        linker = Linker(engine)
        linker.add_wasip2()
        self.instance = linker.instantiate(self.store, Component.from_file(engine, component))
        self.log = self.instance.get_export_index(self.store, "seawall:log/log@0.1.0")

    def call(self, name, *arguments):
        """Calls a function of the interface; what it fails with is raised."""
        index = self.instance.get_export_index(self.store, name, self.log)
        function = self.instance.get_func(self.store, index)
        result = function(self.store, *arguments)
        function.post_return(self.store)
        if not isinstance(result, Variant):
            return result
        if result.tag == "ok":
            return result.payload
        raise RuntimeError(f"{name}: {result}")


def main(component, folder):
    seawall = Seawall(component, folder)
    pairs = [(b"user:42", b"alice@example.com"), (b"user:43", b"bob@example.com")]
    parts = [part for pair in pairs for part in pair]
    # Records cross the boundary flat: keys and values one after the other, and their lengths.
    batch = record(data=b"".join(parts), lengths=[len(part) for part in parts], attributes=[])

    config = seawall.call("default-config")
    log, found = seawall.call("[static]log.open", "", config)
    appended = seawall.call("[method]log.append-batch", log, batch, "disk")
    seawall.call("[method]log.close", log)
    print(f"new: {getattr(found, 'is-new')}; appended {appended.first} to {appended.last}")

    log, recovery = seawall.call("[static]log.open", "", config)
    cursor = seawall.call("[method]log.read-from", log, appended.first, "durable")
    page = seawall.call("[method]cursor.read-batch", cursor, 1 << 20)
    ends = accumulate(page.records.lengths, initial=0)
    read = [bytes(page.records.data[begin:end]) for begin, end in pairwise(ends)]
    seawall.call("[method]log.close", log)
    clean = getattr(recovery, "was-clean")
    print(f"clean: {clean}; read", *(part.decode() for part in read))
    return read == parts and clean and getattr(found, "is-new")


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]) else 1)
