//! What is read back, and what is not: equivalents, limits, losses.

use super::*;
use arrow::datatypes::i256;
