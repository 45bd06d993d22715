//! The crate `getrandom` looks the C library's function up by its name at run time: ours has to be found there.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-tests=-Wl,--export-dynamic-symbol=getrandom");
}
