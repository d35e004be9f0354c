//! Block files: which to look at, opening them, and what is wrong with them.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use chronolith_block::{Block, BlockCache, BlockMeta, CACHE_BYTES_DEFAULT, Error, FileName, Ulid};
use chronolith_env::{Fs, OpenMode};
use chronolith_model::TenantId;
use clap::Args;
use serde::Serialize;

use super::format::count;
use super::metered_fs::{Meter, MeteredFs};
use super::{ToolArgs, Verdict, shown};

/// At most so many files are looked at by one command.
const BLOCK_FILES_MAX: usize = 1 << 20;

/// At most this many damaged places are listed; all are counted.
const DAMAGE_LISTED_MAX: usize = 1000;

/// Which blocks.
#[derive(Debug, Args)]
pub(crate) struct BlockArgs {
    /// Block files; without any, all blocks of the data directory
    #[arg(value_name = "FILE", conflicts_with_all = ["data_dir", "tenant"])]
    files: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) tool: ToolArgs,
    /// Only blocks of this tenant
    #[arg(long, value_name = "TENANT", value_parser = TenantId::new)]
    tenant: Option<TenantId>,
}

/// A file, and whose block it should be by its place.
#[derive(Clone, Debug)]
pub(super) struct BlockFile {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    ulid: Option<Ulid>,
    tenant: Option<String>,
}

/// The files to look at.
#[derive(Debug)]
pub(super) struct BlockFiles {
    fs: Arc<dyn Fs>,
    meter: Arc<Meter>,
    cache: BlockCache,
    /// By name, within their tenants.
    pub(super) files: Vec<BlockFile>,
    /// Where they were looked for; `None` if they were given by name.
    pub(super) directory: Option<String>,
    pub(super) problems: Problems,
}

/// What is wrong with blocks.
#[derive(Debug, Default, Serialize)]
pub(super) struct Problems {
    /// The first damaged places.
    pub(super) damage: Vec<Problem>,
    /// Verifying finds [`chronolith_block::PROBLEMS_MAX`] in a block and no more.
    pub(super) damage_count: u64,
    /// Files of versions that this program does not know, or may not read.
    foreign: Vec<Problem>,
    /// Damaged blocks that were set aside before; they are not looked at.
    quarantined: Vec<String>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    pub(super) file: String,
    section: Option<String>,
    offset: Option<u64>,
    reason: &'static str,
    /// All of it, for people.
    error: String,
}

impl BlockFiles {
    /// Finds the files that `args` mean. The progress of reading them is `what`.
    ///
    /// # Errors
    /// When there is no such directory or tenant, or it cannot be listed.
    pub(super) fn find(
        fs: Arc<dyn Fs>,
        args: &BlockArgs,
        what: &'static str,
        visible: bool,
    ) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        let (mut directory, mut quarantined) = (None, Vec::new());
        if args.files.is_empty() {
            let blocks = args.tool.data_dir.join("blocks");
            list(&fs, &args.tool.data_dir, &blocks, args.tenant.as_ref(), &mut files, &mut quarantined)?;
            directory = Some(shown(&blocks));
        } else {
            for path in &args.files {
                ensure!(
                    !path.is_dir(),
                    "{} is a directory; name block files, or the data directory with --data-dir",
                    shown(path)
                );
                let file = fs.open(path, OpenMode::Read).map_err(|error| explained(&error.into()))?;
                let bytes = file.len().map_err(|error| explained(&error.into()))?;
                files.push(BlockFile { path: path.clone(), bytes, ulid: name(path), tenant: None });
            }
        }
        let bytes = files.iter().map(|file| file.bytes).sum();
        let meter = Arc::new(Meter::new(what, bytes, visible));
        let fs = Arc::new(MeteredFs::new(fs, Arc::clone(&meter)));
        let problems = Problems { quarantined, ..Problems::default() };
        let cache = BlockCache::new(CACHE_BYTES_DEFAULT);
        Ok(Self { fs, meter, cache, files, directory, problems })
    }

    /// Opens a file; what is wrong with it is noted. `None` if it cannot be opened, or has been removed since.
    ///
    /// # Errors
    /// When the system refuses a file that was given by name.
    pub(super) fn open(&mut self, file: &BlockFile) -> anyhow::Result<Option<Block>> {
        self.meter.next_file(file.bytes);
        let block = match Block::open(&self.fs, &file.path, &self.cache) {
            Ok(block) => block,
            // A running server has removed it since it was listed.
            Err(Error::Fs(error)) if self.directory.is_some() && error.is_not_found() => return Ok(None),
            Err(error @ Error::Fs(_)) if self.directory.is_none() => return Err(explained(&error)),
            Err(error) => {
                self.problems.note(&file.path, &error);
                return Ok(None);
            }
        };
        let spec = &block.meta().spec;
        let misnamed = file.ulid.is_some_and(|ulid| ulid != spec.ulid)
            || file.tenant.as_ref().is_some_and(|tenant| tenant != spec.tenant.as_str());
        if misnamed {
            self.problems.misnamed(&file.path, block.meta());
        }
        Ok(Some(block))
    }

    /// Describes all that can be opened, by tenant and time.
    ///
    /// # Errors
    /// As [`BlockFiles::open`].
    pub(super) fn describe<T>(
        &mut self,
        mut describe: impl FnMut(&Block) -> T,
    ) -> anyhow::Result<Vec<(BlockFile, BlockMeta, T)>> {
        let mut all = Vec::new();
        for mut file in self.files.clone() {
            // It is not read whole: the meter stays.
            let bytes = std::mem::take(&mut file.bytes);
            if let Some(block) = self.open(&file)? {
                all.push((BlockFile { bytes, ..file }, block.meta().clone(), describe(&block)));
            }
        }
        all.sort_by(|(_, a, _), (_, b, _)| {
            let key = |meta: &BlockMeta| (meta.spec.range.min, meta.spec.range.max, meta.spec.ulid);
            a.spec.tenant.cmp(&b.spec.tenant).then_with(|| key(a).cmp(&key(b)))
        });
        Ok(all)
    }
}

/// Adds the blocks below `blocks`.
fn list(
    fs: &Arc<dyn Fs>,
    data_dir: &Path,
    blocks: &Path,
    tenant: Option<&TenantId>,
    files: &mut Vec<BlockFile>,
    quarantined: &mut Vec<String>,
) -> anyhow::Result<()> {
    if !fs.exists(blocks)? {
        bail!("{} has no blocks: there is no directory {}", shown(data_dir), shown(blocks));
    }
    let tenants = match tenant {
        Some(tenant) if !fs.exists(&blocks.join(tenant.as_str()))? => {
            bail!("{} has no blocks of tenant {tenant}", shown(data_dir));
        }
        Some(tenant) => vec![tenant.to_string()],
        None => fs.list(blocks)?,
    };
    // Whatever else lies there is not ours.
    for tenant in tenants.into_iter().filter(|tenant| TenantId::new(tenant).is_ok()) {
        let dir = blocks.join(&tenant);
        let names = match fs.list(&dir) {
            Ok(names) => names,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotADirectory | std::io::ErrorKind::NotFound
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error).context("the blocks cannot be listed"),
        };
        quarantined.extend(set_aside(&**fs, &dir));
        for name in names {
            let FileName::Block(ulid) = FileName::parse(&name) else { continue };
            ensure!(files.len() < BLOCK_FILES_MAX, "more than {BLOCK_FILES_MAX} blocks; choose a --tenant");
            let path = dir.join(name);
            // What cannot be opened is reported when it is to be read.
            let bytes = fs.open(&path, OpenMode::Read).and_then(|file| file.len()).unwrap_or(0);
            files.push(BlockFile { path, bytes, ulid: Some(ulid), tenant: Some(tenant.clone()) });
        }
    }
    Ok(())
}

/// The damaged blocks of a tenant that were set aside; what cannot be listed is none.
pub(super) fn set_aside(fs: &dyn Fs, tenant_dir: &Path) -> Vec<String> {
    let dir = tenant_dir.join("quarantine");
    let names = fs.list(&dir).unwrap_or_default();
    let blocks = names.iter().filter(|name| matches!(FileName::parse(name), FileName::Block(_)));
    blocks.map(|name| shown(&dir.join(name))).take(DAMAGE_LISTED_MAX).collect()
}

/// The block that a file should be by its name.
fn name(path: &Path) -> Option<Ulid> {
    match FileName::parse(path.file_name()?.to_str()?) {
        FileName::Block(ulid) => Some(ulid),
        _ => None,
    }
}

/// An error and what is behind it.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn explained(error: &Error) -> anyhow::Error {
    anyhow::Error::msg(text(error))
}

impl Problems {
    /// Notes an error that a block gave, once for each place.
    pub(super) fn note(&mut self, path: &Path, error: &Error) {
        let reason = match error {
            Error::Checksum { .. } => "checksum",
            Error::Content { .. } => "content",
            Error::Mismatch { .. } => "mismatch",
            Error::Index { .. } => "index",
            Error::ForeignVersion { .. } => "version",
            Error::Fs(_) => "unreadable",
            _ => "other",
        };
        let place = error.place();
        let problem = Problem {
            file: shown(path),
            section: place.map(|(section, _)| section.to_string().replace(' ', "_")),
            offset: place.map(|(_, off)| off),
            reason,
            error: text(error),
        };
        match error {
            // It says nothing of the bytes.
            Error::Fs(refused) if refused.kind() == std::io::ErrorKind::PermissionDenied => {
                self.unseen(problem)
            }
            Error::ForeignVersion { .. } => self.unseen(problem),
            _ => self.add(problem),
        }
    }

    fn unseen(&mut self, problem: Problem) {
        if !self.foreign.contains(&problem) && self.foreign.len() < DAMAGE_LISTED_MAX {
            self.foreign.push(problem);
        }
    }

    fn misnamed(&mut self, path: &Path, meta: &BlockMeta) {
        let (file, spec) = (shown(path), &meta.spec);
        let error = format!(
            "{file}: says it is block {} of tenant {}, and lies where another belongs",
            spec.ulid, spec.tenant
        );
        self.add(Problem { file, section: Some("hotcache".to_owned()), offset: None, reason: "name", error });
    }

    fn add(&mut self, problem: Problem) {
        if self.damage.contains(&problem) {
            return;
        }
        self.damage_count += 1;
        if self.damage.len() < DAMAGE_LISTED_MAX {
            self.damage.push(problem);
        }
    }

    /// How a command ends that was to read everything.
    pub(super) fn verdict(&self) -> Verdict {
        match self.damage_count {
            0 => self.seen(),
            _ => Verdict::Damaged,
        }
    }

    /// How a command ends that describes what it can.
    pub(super) fn seen(&self) -> Verdict {
        if self.foreign.is_empty() { Verdict::Clean } else { Verdict::Unseen }
    }

    /// Lines for people.
    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        for problem in &self.damage {
            out.push_str(&format!("damaged: {}\n", problem.error));
        }
        let rest = self.damage_count - self.damage.len() as u64;
        if rest > 0 {
            out.push_str(&format!("damaged: {} more\n", count(rest, "place")));
        }
        for problem in &self.foreign {
            out.push_str(&format!("cannot be read: {}\n", problem.error));
        }
        for path in &self.quarantined {
            out.push_str(&format!("set aside before, and not looked at: {path}\n"));
        }
        out
    }
}
