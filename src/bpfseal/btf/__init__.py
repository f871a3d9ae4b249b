"""BTF and .BTF.ext: read, edit, build, look up."""
