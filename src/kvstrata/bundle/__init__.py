"""The offline bundle: everything that a site without internet needs, in parts of one size, checked on arrival."""
