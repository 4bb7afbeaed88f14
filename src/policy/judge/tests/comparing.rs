//! Comparisons, gates and settings under small made-up windows.

use super::*;
