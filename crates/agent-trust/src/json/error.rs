//! Why a text is not the JSON we read. Messages never repeat the text: it is a peer's.

/// A text that is not strict JSON (card §6.6): what is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault} at byte {offset}")]
pub struct JsonError {
    /// What is wrong.
    pub fault: JsonFault,
    /// Where, in bytes from the start of the text.
    pub offset: usize,
}

/// What is wrong with a text (card §6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// The bytes are not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The text starts with a byte order mark.
    #[error("the text starts with a byte order mark")]
    ByteOrderMark,
    /// The text ends too early.
    #[error("the text ends too early")]
    Truncated,
    /// Something follows the document.
    #[error("data after the document")]
    TrailingData,
    /// A character that JSON does not allow here.
    #[error("unexpected character")]
    Unexpected,
    /// An escape that JSON does not know.
    #[error("invalid escape")]
    Escape,
    /// A control character inside a string.
    #[error("unescaped control character in a string")]
    ControlCharacter,
    /// Half of a surrogate pair.
    #[error("lone surrogate in a string")]
    LoneSurrogate,
    /// A number that JSON does not allow.
    #[error("malformed number")]
    Number,
    /// A number beyond the range of a double.
    #[error("number does not fit a double")]
    NumberRange,
    /// A member name that occurs twice in one object.
    #[error("duplicate member name in an object")]
    DuplicateName,
    /// Nesting deeper than [`MAX_DEPTH`](super::MAX_DEPTH).
    #[error("nesting deeper than {max} levels", max = super::MAX_DEPTH)]
    TooDeep,
    /// More values than [`MAX_VALUES`](super::MAX_VALUES).
    #[error("more than {max} values", max = super::MAX_VALUES)]
    TooManyValues,
}
