//! Columns of the forward table: which value of one label the rows of one segment have.

use chronolith_codec::{Reader, unzigzag, write, zigzag};

use super::{error::DiskIndexError, section::Place};

/// Rows of a segment.
pub(super) const SEGMENT_ROWS: u32 = 4096;
/// Numbers of a block that share a width.
const BLOCK: usize = 128;
/// Most bytes of a column before it is packed: four bytes a row and more.
pub(super) const COLUMN_BYTES_MAX: usize = SEGMENT_ROWS as usize * 8;

/// How a column is coded.
const RUNS: u8 = 0;
const BLOCKS: u8 = 1;
const DELTA_BLOCKS: u8 = 2;

/// Appends the codes of a segment, in the form that is smallest. A code is 0 where a row lacks the label, else one more
/// than the value's number.
pub(super) fn encode(codes: &[u32], out: &mut Vec<u8>) {
    let forms = [encode_runs(codes), encode_blocks(codes), encode_delta_blocks(codes)];
    if let Some(best) = forms.iter().min_by_key(|form| form.len()) {
        out.extend_from_slice(best);
    }
}

fn encode_runs(codes: &[u32]) -> Vec<u8> {
    let mut out = vec![RUNS];
    let mut previous = 0i64;
    for run in codes.chunk_by(|a, b| a == b) {
        let Some(code) = run.first() else { continue };
        write::varint(&mut out, i64::from(*code) - previous);
        write::uvarint(&mut out, run.len() as u64 - 1);
        previous = i64::from(*code);
    }
    out
}

fn encode_blocks(codes: &[u32]) -> Vec<u8> {
    let mut out = vec![BLOCKS];
    for block in codes.chunks(BLOCK) {
        push_block(block.iter().copied(), &mut out);
    }
    out
}

fn encode_delta_blocks(codes: &[u32]) -> Vec<u8> {
    let mut out = vec![DELTA_BLOCKS];
    let mut previous = 0i64;
    let mut deltas = Vec::with_capacity(BLOCK);
    for block in codes.chunks(BLOCK) {
        deltas.clear();
        for code in block {
            deltas.push(u32::try_from(zigzag(i64::from(*code) - previous)).unwrap_or(u32::MAX));
            previous = i64::from(*code);
        }
        push_block(deltas.iter().copied(), &mut out);
    }
    out
}

/// Least number as a uvarint, width in bits, then the numbers less the least, least significant bits first.
fn push_block(numbers: impl Iterator<Item = u32> + Clone, out: &mut Vec<u8>) {
    let least = numbers.clone().min().unwrap_or(0);
    let width = numbers.clone().max().map_or(0, |most| 32 - (most - least).leading_zeros());
    write::uvarint(out, u64::from(least));
    out.push(width as u8);
    let (mut word, mut bits) = (0u64, 0u32);
    for number in numbers {
        word |= u64::from(number - least) << bits;
        bits += width;
        while bits >= 8 {
            out.push(word as u8);
            word >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(word as u8);
    }
}

/// The codes of a column of `rows` rows; none is above `values`.
pub(super) fn decode(bytes: &[u8], rows: u32, values: u32, place: Place) -> Result<Vec<u32>, DiskIndexError> {
    let rows = rows as usize;
    let mut reader = Reader::new(bytes);
    let mut codes = Vec::with_capacity(rows);
    match reader.u8("coding of a column").map_err(|e| place.field(e))? {
        RUNS => {
            let mut code = 0i64;
            while codes.len() < rows {
                code = code.wrapping_add(reader.varint("code").map_err(|e| place.field(e))?);
                let left = rows - codes.len();
                let len = reader.count(left - 1, "length of a run").map_err(|e| place.field(e))? + 1;
                let code = u32::try_from(code).map_err(|_| place.malformed("codes of 32 bits"))?;
                codes.resize(codes.len() + len, code);
            }
        }
        BLOCKS => read_blocks(&mut reader, rows, &mut codes, place)?,
        DELTA_BLOCKS => {
            read_blocks(&mut reader, rows, &mut codes, place)?;
            let mut code = 0u32;
            for delta in &mut codes {
                code = code.wrapping_add(unzigzag(u64::from(*delta)) as u32);
                *delta = code;
            }
        }
        _ => return Err(place.malformed("a known coding of a column")),
    }
    reader.finish().map_err(|e| place.field(e))?;
    if codes.iter().any(|code| *code > values) {
        return Err(place.malformed("codes of values that exist"));
    }
    Ok(codes)
}

fn read_blocks(
    reader: &mut Reader<'_>,
    rows: usize,
    codes: &mut Vec<u32>,
    place: Place,
) -> Result<(), DiskIndexError> {
    while codes.len() < rows {
        let least = reader.count(u32::MAX as usize, "least of a block").map_err(|e| place.field(e))? as u32;
        let width = reader.u8("width of a block").map_err(|e| place.field(e))?;
        if width > 32 {
            return Err(place.malformed("a width of at most 32 bits"));
        }
        let count = BLOCK.min(rows - codes.len());
        let bytes = reader
            .slice((count * usize::from(width)).div_ceil(8), "numbers of a block")
            .map_err(|e| place.field(e))?;
        let (mut word, mut bits, mut bytes) = (0u64, 0u32, bytes.iter());
        let (width, mask) = (u32::from(width), (1u64 << width) - 1);
        for _ in 0..count {
            while bits < width {
                word |= u64::from(bytes.next().copied().unwrap_or_default()) << bits;
                bits += 8;
            }
            codes.push(least.wrapping_add((word & mask) as u32));
            word >>= width;
            bits -= width;
        }
    }
    Ok(())
}
