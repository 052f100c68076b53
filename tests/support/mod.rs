//! What the tests on real parts share: the bed, a place of its own for each test, git repositories, clients.

pub mod bed;
pub mod clients;
pub mod operator;
pub mod parts;
pub mod place;
pub mod process;
pub mod repository;
pub mod s3;
pub mod trap;
