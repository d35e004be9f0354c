//! Bit, varint and checksum readers and writers with every read bounds-checked.
