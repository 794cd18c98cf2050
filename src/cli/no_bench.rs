//! `vulpes bench` in a build without the feature `bench`: it says how to get it.

use clap::Args;

#[derive(Debug, Args)]
#[command(hide = true, disable_help_flag = true)]
pub(super) struct Bench {
    /// Whatever is asked for
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<String>,
}

impl Bench {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        anyhow::bail!("this build has no bench: build Vulpes with its default features to have it")
    }
}
