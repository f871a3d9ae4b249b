"""From a `BpfObject` to a `Loader`: instructions, metadata and loader BTF."""
