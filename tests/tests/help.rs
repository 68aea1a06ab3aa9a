//! If this fails, an overloaded server gets no help by itself, gets it twice, or gets what nobody wants: a domain that moves although it
//! must stay, a helper that dies of the help, a server that cannot be emptied.
//!
//! All through the mounted tree, over simulated servers; the story itself over real QEMU hosts too.

#[path = "help/bounds.rs"]
mod bounds;
#[path = "help/evacuate.rs"]
mod evacuate;
#[path = "help/kills.rs"]
mod kills;
#[path = "help/modes.rs"]
mod modes;
#[path = "help/settings.rs"]
mod settings;
#[path = "help/sixteen.rs"]
mod sixteen;
#[path = "help/stage.rs"]
mod stage;
#[path = "help/story.rs"]
mod story;
