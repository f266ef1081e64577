//! x
pub mod error;
pub mod event;
pub mod frame;
pub mod hub;
pub mod fmp4;
pub mod source { 
//! x
}
