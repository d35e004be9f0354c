//! Chunk encodings: Gorilla XOR for open float chunks.
