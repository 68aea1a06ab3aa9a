//! Values that are written as text in JSON.

/// `TryFrom<String>` and `Into<String>` by a type's own `parse` and `Display`, for serde's `try_from` and `into`.
macro_rules! as_text {
    ($($name:ident),+) => {$(
        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $name::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.to_string()
            }
        }
    )+};
}
pub(crate) use as_text;
