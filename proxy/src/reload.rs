//! Files that may change while the service runs, such as certificates and keys. They are read once a second and compared by
//! content: Kubernetes and certbot replace symbolic links, so a watch on the file itself would miss the change.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

const INTERVAL: Duration = Duration::from_secs(1);

/// The bytes of each file, in the order of the paths.
pub type Contents<const N: usize> = [Vec<u8>; N];

/// A file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct ReadError {
    /// Which file.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Files that belong together, such as a certificate and its key.
#[derive(Clone, Debug)]
pub struct Files<const N: usize> {
    paths: [PathBuf; N],
    interval: Duration,
    /// What [`Files::changed`] returned last.
    returned: Fingerprint<N>,
}

/// The fingerprint of the files, without the secrets that they may contain.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fingerprint<const N: usize> {
    Read([[u8; 32]; N]),
    Unreadable(PathBuf, io::ErrorKind),
}

impl<const N: usize> Files<N> {
    /// Reads the files. This blocks, so call it only at the start.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn open(paths: [PathBuf; N]) -> Result<(Self, Contents<N>), ReadError> {
        let contents = read(&paths)?;
        let returned = Fingerprint::of(&contents);
        Ok((Self { paths, interval: INTERVAL, returned }, contents))
    }

    /// Waits until the files differ from those returned last, and have stayed the same for two reads: somebody may be in the
    /// middle of replacing them. The future can be dropped at any time.
    ///
    /// # Errors
    /// When a file can no longer be read, or for a new reason. Each failure is returned once.
    pub async fn changed(&mut self) -> Result<Contents<N>, ReadError> {
        let mut seen = self.returned.clone();
        loop {
            sleep(self.interval).await;
            let found = read_aside(self.paths.clone()).await;
            let fingerprint = found.as_ref().map_or_else(Fingerprint::of_error, Fingerprint::of);
            if fingerprint == seen && fingerprint != self.returned {
                self.returned = fingerprint;
                return found;
            }
            seen = fingerprint;
        }
    }
}

impl<const N: usize> Fingerprint<N> {
    fn of(contents: &Contents<N>) -> Self {
        Self::Read(contents.each_ref().map(|bytes| Sha256::digest(bytes).into()))
    }

    fn of_error(error: &ReadError) -> Self {
        Self::Unreadable(error.path.clone(), error.source.kind())
    }
}

fn read<const N: usize>(paths: &[PathBuf; N]) -> Result<Contents<N>, ReadError> {
    let mut contents = [const { Vec::new() }; N];
    for (bytes, path) in contents.iter_mut().zip(paths) {
        *bytes = read_one(path)?;
    }
    Ok(contents)
}

fn read_one(path: &Path) -> Result<Vec<u8>, ReadError> {
    std::fs::read(path).map_err(|source| ReadError { path: path.to_owned(), source })
}

/// Reads on a thread for blocking work, because a disk may be slow.
async fn read_aside<const N: usize>(paths: [PathBuf; N]) -> Result<Contents<N>, ReadError> {
    let first = paths.first().cloned().unwrap_or_default();
    let reading = tokio::task::spawn_blocking(move || read(&paths));
    reading.await.unwrap_or_else(|failure| Err(ReadError { path: first, source: io::Error::other(failure) }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    /// Two files with these contents, read often.
    fn files(dir: &TempDir, contents: [&str; 2]) -> Files<2> {
        let paths = ["a", "b"].map(|name| dir.path().join(name));
        for (path, content) in paths.iter().zip(contents) {
            std::fs::write(path, content).unwrap();
        }
        let (files, read) = Files::open(paths).unwrap();
        assert_eq!(read, contents.map(|content| content.as_bytes().to_vec()));
        Files { interval: Duration::from_millis(5), ..files }
    }

    async fn changed(files: &mut Files<2>) -> Result<Contents<2>, ReadError> {
        timeout(SOON, files.changed()).await.unwrap()
    }

    #[tokio::test]
    async fn new_content_of_any_file_is_returned_once() {
        let dir = TempDir::new().unwrap();
        let mut files = files(&dir, ["one", "two"]);
        std::fs::write(dir.path().join("b"), "three").unwrap();
        assert_eq!(changed(&mut files).await.unwrap(), [b"one".to_vec(), b"three".to_vec()]);

        // The same bytes in a new file are no change.
        std::fs::remove_file(dir.path().join("b")).unwrap();
        std::fs::write(dir.path().join("b"), "three").unwrap();
        assert!(timeout(Duration::from_millis(100), files.changed()).await.is_err());
    }

    #[tokio::test]
    async fn a_link_that_is_pointed_elsewhere_is_a_change() {
        let dir = TempDir::new().unwrap();
        let mut files = files(&dir, ["old", "-"]);
        let (real, link) = (dir.path().join("real"), dir.path().join("a"));
        std::fs::write(&real, "new").unwrap();
        symlink(&real, dir.path().join("link")).unwrap();
        std::fs::rename(dir.path().join("link"), &link).unwrap();
        assert_eq!(changed(&mut files).await.unwrap()[0], b"new");
    }

    #[tokio::test]
    async fn a_missing_file_is_reported_and_so_is_its_return() {
        let dir = TempDir::new().unwrap();
        let mut files = files(&dir, ["one", "two"]);
        let path = dir.path().join("a");
        std::fs::remove_file(&path).unwrap();
        let error = changed(&mut files).await.unwrap_err();
        assert_eq!((&error.path, error.source.kind()), (&path, io::ErrorKind::NotFound));
        std::fs::write(&path, "one").unwrap();
        assert_eq!(changed(&mut files).await.unwrap()[0], b"one");
    }

    #[test]
    fn the_first_reading_says_which_file_is_missing() {
        let error = Files::open([PathBuf::from("/nowhere/at/all")]).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/at/all");
    }
}
