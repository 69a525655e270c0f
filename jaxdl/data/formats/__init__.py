"""File formats, one module each: every `read_*` returns a Table; `jaxdl.data.readers.read` chooses among them."""
