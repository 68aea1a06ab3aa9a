//! xvm-config(5): the file of a config, from the table of settings.

use crate::roff::Page;
use uuid::Uuid;
use xvm_model::Config;
use xvm_model::config::settings::SETTINGS;
use xvm_model::config::{ITEMS_MAX, text};

/// The file that the page shows.
const EXAMPLE: &str = r#"# small-6: a web server for the second year
memory = 512
vcpus = 2
disk = 4096
os = "debian/bookworm"
address = "10.0.0.6/24 via 10.0.0.1"
packages = ["nginx", "vim"]
keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample student@desk"]
pin = ["ferby", "gerby"]
restart = "always"

[rights]
uid = 1042
gid = 100
mode = 488      # 0750
"#;

/// The page.
pub fn page() -> String {
    let mut p = Page::new("xvm-config", 5, "the file that defines a virtual machine");
    p.section("SYNOPSIS").literal("CONFIGS/NAME.toml\nCONFIGS/defaults.toml");
    p.section("DESCRIPTION").text(
        "imaged(8) keeps each config as one file in its directory of configs: the definition of one domain in TOML. People may edit \
         it, put new ones there, share the directory and keep it under version control: imaged notices each change when the file is \
         closed or renamed into place, checks it, and shows the outcome in configs/NAME of the mounted tree, see xvm(4). A file that \
         appears makes a config, as mkdir configs/NAME does. What is set in the tree is written into the file.",
    ).text(
        "NAME is the name of the config, of its domain, and the host name of its guest: 1 to 40 letters, digits or '-', beginning and \
         ending with a letter or a digit. Names that begin with a dot or end otherwise than in .toml are not read, so an editor's own \
         files do no harm.",
    );
    p.section("KEYS").text(
        "All keys may be left out. What a file does not say has the site's default of defaults.toml, and where that is silent too, the \
         one that stands here. Numbers are TOML integers, lists are TOML arrays of strings, all else is a string. The same keys are \
         files of configs/NAME, where lists are written with spaces (keys: lines) between and none stands for what a file leaves out, and the words of create in the ctl of \
         the root.",
    );
    let example = Config::new(Uuid::nil());
    let shown = example.to_text();
    for row in SETTINGS {
        p.item(row.key, &format!("{}.", upper_first(row.about)));
        p.more(&format!("May be changed {}.", row.when));
        match row.key {
            "mac" => p.more("Default: made of uuid."),
            key => p.more(&format!("Default: {}.", default(&shown, key))),
        };
    }
    p.item("uuid", "The identity of the domain, as hypervisors know it.");
    p.more("May not be changed. Default: one that is made when the file is first read, and written into it.");
    p.item(
        "rights",
        "A table: uid and gid, numbers, say whose the config and its domain are; mode, a number, has the permission bits of the \
         directories configs/NAME and domains/NAME, 0 to 511 (0777). chown(1), chgrp(1) and chmod(1) on the directory set it.",
    );
    p.more("May be changed at any time. Default: uid 0, gid 0, mode 493 (0755).");
    p.section("LISTS").text(&format!("keys and packages have at most {ITEMS_MAX} entries each."));
    p.section("FILES").item(
        "defaults.toml",
        "The site's defaults: the same keys, each of which counts for every config that does not say it itself when it is made. So no \
         config can be called defaults.",
    );
    p.section("ERRORS").text(
        "A file that does not read never takes a working config away: imaged goes on with the definition that it had, \
         wrong in configs/NAME/status, configs/NAME/error and an event `wrong: LINE: WHY` tell what is not allowed, and a config that never had a \
         definition that reads is invalid. As soon as the file is right it counts. Examples:",
    );
    p.literal(&wrongs());
    p.section("EXAMPLES").text("small-6.toml:").literal(EXAMPLE);
    p.text("The same by commands:").literal(
        "mkdir /xvm/configs/small-6\n\
         echo 512 > /xvm/configs/small-6/memory\n\
         cat ~/.ssh/id_ed25519.pub > /xvm/configs/small-6/keys\n\
         echo create small-7 memory=512 packages=nginx,vim > /xvm/ctl",
    );
    p.section("SEE ALSO").line(".BR xvm (4),\n.BR xvm-messages (5),\n.BR xvmfs (8),\n.BR agentd (8)");
    p.finish()
}

/// The default as the file writes it.
fn default(shown: &str, key: &str) -> String {
    let line = shown.lines().find_map(|l| l.strip_prefix(key)?.trim_start().strip_prefix('='));
    match line.map(str::trim) {
        None | Some("[]") => "none".into(),
        Some(value) => value.to_owned(),
    }
}

/// What is said of wrong files, by the code that says it.
fn wrongs() -> String {
    let defaults = Config::new(Uuid::nil());
    let files =
        ["memory = 8\n", "os = \"debian/bookworm\"\ncolour = \"red\"\n", "vcpus = 1\n\nmemory = \"much\"\n"];
    let wrong = files.iter().filter_map(|f| text::read(f, &defaults, Uuid::nil()).err());
    wrong.map(|w| format!("{w}\n")).collect()
}

fn upper_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails, the page shows a file that imaged refuses.
    #[test]
    fn the_example_is_a_config() {
        let c = text::read(EXAMPLE, &Config::new(Uuid::nil()), Uuid::from_u128(6)).expect("it reads");
        assert_eq!((c.memory, c.rights.mode, c.pin.to_string()), (512, 0o750, "ferby gerby".into()));
        assert_eq!(wrongs().lines().count(), 3);
    }
}
