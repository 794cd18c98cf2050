//! The directory of `vulpes up`: how it is marked as made by this command, and how to start over in it.
//!
//! Invariant: nothing is written to or deleted from a directory that has content and is not marked as ours. In a directory that
//! is ours, only files that `vulpes up` itself makes are ever deleted.
//!
//! Deliberately absent: the contents of the nodes' data.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use vulpes_raft::host::make_private;

use crate::cli::plan::Ports;

/// The file that marks a directory as ours.
const MARKER: &str = "vulpes-up.toml";

/// The form of the marker.
const FORMAT: u32 = 1;

/// The cluster in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Marker {
    format: u32,
    /// The number of nodes in each storage group.
    pub(super) nodes: u16,
    #[serde(default = "one")]
    pub(super) groups: u16,
    peer_port: u16,
    wamp_port: u16,
    mqtt_port: u16,
    admin_port: u16,
}

/// The default for directories made before there were storage groups.
fn one() -> u16 {
    1
}

impl Marker {
    pub(super) fn new(nodes: u16, groups: u16, ports: Ports) -> Self {
        let Ports { peer, wamp, mqtt, admin } = ports;
        Self {
            format: FORMAT,
            nodes,
            groups,
            peer_port: peer,
            wamp_port: wamp,
            mqtt_port: mqtt,
            admin_port: admin,
        }
    }

    pub(super) fn ports(&self) -> Ports {
        Ports {
            peer: self.peer_port,
            wamp: self.wamp_port,
            mqtt: self.mqtt_port,
            admin: self.admin_port,
        }
    }

    pub(super) fn set_ports(&mut self, ports: Ports) {
        self.peer_port = ports.peer;
        self.wamp_port = ports.wamp;
        self.mqtt_port = ports.mqtt;
        self.admin_port = ports.admin;
    }
}

/// A directory that is ours, or can become ours.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    marker: Option<Marker>,
}

impl Directory {
    /// Examines a directory without changing anything.
    pub(super) fn look(path: &Path) -> anyhow::Result<Self> {
        let marker_path = path.join(MARKER);
        let shown = path.display();
        match std::fs::read_to_string(&marker_path) {
            Ok(text) => {
                let marker: Marker = toml::from_str(&text).with_context(|| {
                    format!(
                        "{} can't be understood; was it made by a newer release? Choose another --data",
                        marker_path.display()
                    )
                })?;
                anyhow::ensure!(
                    marker.format == FORMAT,
                    "{shown} was made in format {}, this release knows format {FORMAT}; choose another --data",
                    marker.format
                );
                return Ok(Self { path: path.to_owned(), marker: Some(marker) });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("can't use {shown} as --data"))
            }
        }
        let occupied = match std::fs::read_dir(path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => {
                return Err(error).with_context(|| format!("can't use {shown} as --data"))
            }
        };
        anyhow::ensure!(
            !occupied,
            "{shown} holds something that `vulpes up` did not make; choose another --data"
        );
        Ok(Self { path: path.to_owned(), marker: None })
    }

    /// The cluster that was made here last time.
    pub(super) fn marker(&self) -> Option<&Marker> {
        self.marker.as_ref()
    }

    /// Marks it as ours, after deleting its contents if `fresh`.
    pub(super) fn claim(&self, marker: &Marker, fresh: bool) -> anyhow::Result<()> {
        make_private(&self.path)
            .with_context(|| format!("can't make the directory {}", self.path.display()))?;
        if fresh && self.marker.is_some() {
            self.clear().with_context(|| format!("can't delete {}", self.path.display()))?;
        }
        let path = self.path.join(MARKER);
        let text = format!(
            "# Made by `vulpes up`; without it the directory is not recognised.\n{}",
            toml::to_string(marker)?
        );
        std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
    }

    fn clear(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("node")) else {
                continue;
            };
            let kind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
            let is_directory = entry.file_type()?.is_dir();
            match kind {
                "" if is_directory && !rest.is_empty() => std::fs::remove_dir_all(entry.path())?,
                ".toml" | ".log" | ".log.old" if !is_directory => {
                    std::fs::remove_file(entry.path())?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}
