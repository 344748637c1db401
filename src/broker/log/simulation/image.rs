//! What a simulated disk holds: as the processes see it, as it is on the platter, and what lies between the two.
//!
//! Harsher than most file systems: whatever was not synced may be lost by itself, sector by sector and name by name, in
//! any order. Only what no file system takes apart stays together: two changes of the same name or the same file's
//! names come in their order, and a rename is one change.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rand::{Rng, RngExt};

/// What a disk writes as a whole.
pub(super) const SECTOR_BYTES: u64 = 512;
pub(super) const ROOT: u64 = 0;

/// A change of a file that was not synced.
#[derive(Clone, Debug)]
enum FileChange {
    Write { position: u64, bytes: Arc<[u8]> },
    SetLength(u64),
}

impl FileChange {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            FileChange::Write { position, bytes } => overwrite(content, *position, bytes),
            FileChange::SetLength(length) => content.resize(*length as usize, 0),
        }
    }
}

fn overwrite(content: &mut Vec<u8>, position: u64, bytes: &[u8]) {
    let (from, to) = (position as usize, position as usize + bytes.len());
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(bytes);
}

/// A file, whatever it is called.
#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    current: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    unsynced: Vec<FileChange>,
    /// A sync failed: what it was to write is in the page cache only, and no later sync tries it again.
    has_lost_pages: bool,
    pub modified_ms: i64,
}

impl FileNode {
    pub fn content(&self) -> &[u8] {
        &self.current
    }

    pub fn write(&mut self, position: u64, bytes: Vec<u8>) {
        overwrite(Arc::make_mut(&mut self.current), position, &bytes);
        self.unsynced.push(FileChange::Write { position, bytes: bytes.into() });
    }

    pub fn set_length(&mut self, length: u64) {
        Arc::make_mut(&mut self.current).resize(length as usize, 0);
        self.unsynced.push(FileChange::SetLength(length));
    }

    pub fn sync(&mut self) {
        if self.has_lost_pages {
            let durable = Arc::make_mut(&mut self.durable);
            self.unsynced.drain(..).for_each(|change| change.apply(durable));
        } else {
            self.durable = self.current.clone();
            self.unsynced.clear();
        }
    }

    /// Linux marks the pages clean all the same.
    pub fn fail_to_sync(&mut self) {
        self.has_lost_pages |= !self.unsynced.is_empty();
        self.unsynced.clear();
    }

    /// A power cut would change nothing.
    fn is_synced(&self) -> bool {
        self.unsynced.is_empty() && Arc::ptr_eq(&self.current, &self.durable)
    }

    fn after_power_cut(&self, rng: &mut impl Rng, kept: f64) -> FileNode {
        let mut content = self.durable.to_vec();
        for change in &self.unsynced {
            match change {
                FileChange::SetLength(_) if !rng.random_bool(kept) => {}
                FileChange::SetLength(_) => change.apply(&mut content),
                FileChange::Write { position, bytes } => {
                    let mut rest: &[u8] = bytes;
                    let mut at = *position;
                    while !rest.is_empty() {
                        let sector = ((SECTOR_BYTES - at % SECTOR_BYTES) as usize).min(rest.len());
                        let (now, later) = rest.split_at(sector);
                        if rng.random_bool(kept) {
                            overwrite(&mut content, at, now);
                        }
                        at += now.len() as u64;
                        rest = later;
                    }
                }
            }
        }
        let content = Arc::new(content);
        FileNode { current: content.clone(), durable: content, modified_ms: self.modified_ms, ..FileNode::default() }
    }
}

/// A directory's names, as they are seen and as they are on the platter.
#[derive(Clone, Debug, Default)]
pub(super) struct DirectoryNode {
    pub current: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Node {
    File(FileNode),
    Directory(DirectoryNode),
}

/// A name in a directory.
type Place = (u64, String);

/// A change of names that was not synced: one place loses its node, another one gets it.
#[derive(Clone, Debug)]
struct NameChange {
    node: u64,
    from: Option<Place>,
    to: Option<Place>,
}

impl NameChange {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.from.iter().chain(&self.to)
    }

    fn is_in(&self, directory: u64) -> bool {
        self.places().any(|(in_directory, _)| *in_directory == directory)
    }
}

/// The whole disk at one moment.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Shared with the images of other moments as long as they are the same.
    nodes: BTreeMap<u64, Arc<Node>>,
    unsynced: Vec<NameChange>,
    next_node: u64,
}

impl Image {
    pub fn empty() -> Image {
        let root = Node::Directory(DirectoryNode::default());
        Image { nodes: BTreeMap::from([(ROOT, Arc::new(root))]), unsynced: Vec::new(), next_node: ROOT + 1 }
    }

    pub fn node(&self, id: u64) -> Option<&Node> {
        self.nodes.get(&id).map(Arc::as_ref)
    }

    pub fn file(&mut self, id: u64) -> Option<&mut FileNode> {
        let node = self.nodes.get_mut(&id).filter(|node| matches!(node.as_ref(), Node::File(_)))?;
        match Arc::make_mut(node) {
            Node::File(file) => Some(file),
            Node::Directory(_) => None,
        }
    }

    pub fn directory(&self, id: u64) -> Option<&DirectoryNode> {
        match self.node(id) {
            Some(Node::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    pub fn find(&self, path: &Path) -> Option<u64> {
        let mut at = ROOT;
        for name in names(path) {
            at = *self.directory(at)?.current.get(name)?;
        }
        Some(at)
    }

    /// The directory that a path's last name is in, and that name.
    pub fn place(&self, path: &Path) -> Option<Place> {
        let name = path.file_name()?.to_str()?.to_owned();
        let parent = self.find(path.parent()?)?;
        self.directory(parent).map(|_| (parent, name))
    }

    pub fn link(&mut self, node: Node, to: Place) -> u64 {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Arc::new(node));
        self.change(NameChange { node: id, from: None, to: Some(to) });
        id
    }

    pub fn unlink(&mut self, node: u64, from: Place) {
        self.change(NameChange { node, from: Some(from), to: None });
    }

    pub fn rename(&mut self, node: u64, from: Place, to: Place) {
        self.change(NameChange { node, from: Some(from), to: Some(to) });
    }

    fn change(&mut self, change: NameChange) {
        self.apply(&change, |directory| &mut directory.current);
        self.unsynced.push(change);
    }

    fn apply(&mut self, change: &NameChange, names: fn(&mut DirectoryNode) -> &mut BTreeMap<String, u64>) {
        if let Some((directory, name)) = &change.from
            && let Some(Node::Directory(directory)) = self.nodes.get_mut(directory).map(Arc::make_mut)
            && names(directory).get(name) == Some(&change.node)
        {
            names(directory).remove(name);
        }
        if let Some((directory, name)) = &change.to
            && let Some(Node::Directory(directory)) = self.nodes.get_mut(directory).map(Arc::make_mut)
        {
            names(directory).insert(name.clone(), change.node);
        }
    }

    pub fn sync_directory(&mut self, directory: u64) {
        let chosen: Vec<bool> = self.unsynced.iter().map(|change| change.is_in(directory)).collect();
        self.settle(chosen);
    }

    /// Makes the chosen changes durable, and the earlier ones that they build on; the others stay as they are.
    fn settle(&mut self, mut chosen: Vec<bool>) {
        for later in (0..self.unsynced.len()).rev() {
            for earlier in 0..later {
                chosen[earlier] |= chosen[later] && self.depends(later, earlier);
            }
        }
        let mut left = Vec::new();
        for (change, chosen) in std::mem::take(&mut self.unsynced).into_iter().zip(chosen) {
            if chosen {
                self.apply(&change, |directory| &mut directory.durable);
            } else {
                left.push(change);
            }
        }
        self.unsynced = left;
    }

    fn depends(&self, later: usize, earlier: usize) -> bool {
        let (later, earlier) = (&self.unsynced[later], &self.unsynced[earlier]);
        later.node == earlier.node || later.places().any(|place| earlier.places().any(|other| other == place))
    }

    /// What is found after the power was cut: of what was not synced, each part is there with the probability `kept`.
    pub fn after_power_cut(&self, rng: &mut impl Rng, kept: f64) -> Image {
        let mut image = self.clone();
        let chosen = image.unsynced.iter().map(|_| rng.random_bool(kept)).collect();
        image.settle(chosen);
        image.unsynced.clear();
        for node in image.nodes.values_mut() {
            match node.as_ref() {
                Node::File(file) if file.is_synced() => {}
                Node::File(file) => *node = Arc::new(Node::File(file.after_power_cut(rng, kept))),
                Node::Directory(DirectoryNode { current, durable }) if current == durable => {}
                Node::Directory(DirectoryNode { durable, .. }) => {
                    let found = DirectoryNode { current: durable.clone(), durable: durable.clone() };
                    *node = Arc::new(Node::Directory(found));
                }
            }
        }
        image.forget_unreachable();
        image
    }

    fn forget_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut to_visit = vec![ROOT];
        while let Some(id) = to_visit.pop() {
            if reachable.insert(id)
                && let Some(directory) = self.directory(id)
            {
                to_visit.extend(directory.current.values());
            }
        }
        self.nodes.retain(|id, _| reachable.contains(id));
    }

    /// Everything on it, path by path.
    pub fn files(&self) -> BTreeMap<PathBuf, &[u8]> {
        let mut found = BTreeMap::new();
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = to_visit.pop() {
            match self.nodes[&id].as_ref() {
                Node::File(file) => drop(found.insert(path, file.content())),
                Node::Directory(directory) => {
                    to_visit.extend(directory.current.iter().map(|(name, id)| (path.join(name), *id)));
                }
            }
        }
        found
    }
}

fn names(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}
