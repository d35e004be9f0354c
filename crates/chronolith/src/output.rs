//! What commands print. A reader that hangs up early (`| head`) has seen what it wanted: that is no error.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

/// Prints `text` on standard output.
///
/// # Errors
/// When it cannot be written, unless nobody reads any more.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    read_or_not(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints `text` on standard error. There is nowhere to tell that this failed.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Takes an output that nobody reads to its end for written.
///
/// # Errors
/// The others of `written`.
pub(crate) fn read_or_not(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A writer that goes on when nobody reads any more.
pub(crate) struct ReadOrNot<W>(pub(crate) W);

impl<W: io::Write> io::Write for ReadOrNot<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        read_or_not(self.0.flush())
    }
}

/// Prints an error; `status` is what to exit with.
pub(crate) fn failed(error: &anyhow::Error, status: u8) -> ExitCode {
    note(&format!("error: {error:#}\n"));
    ExitCode::from(status)
}
