//! Writes `deploy/base`, `deploy/default` and `deploy/overlays` from the charts; a test says when they differ.

use anyhow::{Context as _, Result};
use chart_tests::deploy;

fn main() -> Result<()> {
    let folder = deploy::folder();
    let (files, strangers) = deploy::differing(&folder)?;
    for (path, content) in files {
        let to = folder.join(&path);
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        std::fs::write(&to, content).with_context(|| format!("writing {}", to.display()))?;
        println!("wrote deploy/{}", path.display());
    }
    for path in strangers {
        std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        println!("removed {}", path.display());
    }
    Ok(())
}
