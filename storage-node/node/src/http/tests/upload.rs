//! What `POST /upload` stores: whole files, chunks by name, and nothing at all when something fails.

use chordfs_types::{
    chunk_api::Durability,
    fs_error::FsError,
    namespace::{Change, Commit, Extent, FileKind, Ino},
};
use futures_util::{StreamExt, stream};
use reqwest::{
    Body,
    multipart::{Form, Part},
};

use super::{Files, eventually, pattern};

#[tokio::test]
async fn an_uploaded_file_reads_back_and_a_second_upload_replaces_it() {
    let files = Files::start().await;
    files.put("a.txt", b"hello").await;
    assert_eq!(files.body("/a.txt").await, (200, b"hello".to_vec()));
    files.put("a.txt", b"bye").await;
    assert_eq!(files.body("/a.txt").await, (200, b"bye".to_vec()));
    files.put("empty", b"").await;
    assert_eq!(files.body("/empty").await, (200, Vec::new()));
}

#[tokio::test]
async fn put_works_like_post() {
    let files = Files::start().await;
    let form = Form::new().part("files", Part::bytes(&b"x"[..]).file_name("p"));
    let response = files.server.http.put(files.server.url("/upload")).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 204);
    assert_eq!(files.body("/p").await, (200, b"x".to_vec()));
}

#[tokio::test]
async fn a_form_may_have_several_files_and_unknown_fields() {
    let files = Files::start().await;
    let form = Form::new()
        .text("comment", "ignored")
        .part("files", Part::bytes(&b"1"[..]).file_name("one"))
        .part("other", Part::bytes(pattern(100_000)).file_name("not stored"))
        .part("files", Part::bytes(&b"2"[..]).file_name("two"));
    assert_eq!(files.send(form).await.0, 204);
    assert_eq!(files.body("/one").await.1, b"1");
    assert_eq!(files.body("/two").await.1, b"2");
    assert_eq!(files.body("/not%20stored").await.0, 404);
}

#[tokio::test]
async fn a_large_file_is_streamed_in_batches() {
    let files = Files::start().await;
    let data = pattern((37 << 20) + 123);
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = data.chunks(70_001).map(|piece| Ok(piece.to_vec())).collect();
    let part = Part::stream(Body::wrap_stream(stream::iter(pieces))).file_name("large");
    assert_eq!(files.send(Form::new().part("files", part)).await.0, 204);
    assert!(files.chunks.largest_batch_bytes() <= 4 << 20);
    assert!(files.body("/large").await == (200, data));
    let attr = files.namespace.attr("large").unwrap();
    assert_eq!((attr.chunk_bytes, attr.size), (4096, (37 << 20) + 123));
}

#[tokio::test]
async fn a_replaced_file_keeps_owner_and_mode() {
    let files = Files::start().await;
    files.namespace.make(Ino::ROOT, "mine", FileKind::File, "");
    files.put("mine", b"new").await;
    let attr = files.namespace.attr("mine").unwrap();
    assert_eq!((attr.mode, attr.uid, attr.gid, attr.size), (0o640, 1, 1, 3));
}

#[tokio::test]
async fn names_may_have_any_characters() {
    let files = Files::start().await;
    for (name, path) in
        [("ä ö.txt", "/%C3%A4%20%C3%B6.txt"), ("back\\slash", "/back%5Cslash"), ("100%", "/100%25"), ("...", "/...")]
    {
        files.put(name, name.as_bytes()).await;
        assert_eq!(files.body(path).await, (200, name.as_bytes().to_vec()), "{name}");
    }
    files.put(&"n".repeat(255), b"long").await;
}

#[tokio::test]
async fn chunks_of_the_old_scripts_make_a_file() {
    let files = Files::start().await;
    let data = pattern(4000 * 6 + 17);
    for (at, chunk) in data.chunks(4000).enumerate() {
        files.put(&format!("c.txt_chunk_{}", at + 1), chunk).await;
    }
    assert!(files.body("/c.txt").await == (200, data.clone()));
    for (at, chunk) in data.chunks(4000).enumerate() {
        assert!(files.body(&format!("/c.txt_chunk_{}", at + 1)).await == (200, chunk.to_vec()));
    }
    assert_eq!(files.body("/c.txt_chunk_8").await.0, 404);
    assert_eq!(files.chunks.names().len(), 7);
    assert_eq!(files.namespace.attr("c.txt").unwrap().chunk_bytes, 4000);
}

#[tokio::test]
async fn chunk_one_restarts_the_file() {
    let files = Files::start().await;
    files.put("c_chunk_1", &pattern(4000)).await;
    files.put("c_chunk_2", &pattern(4000)).await;
    files.put("c_chunk_1", b"short").await;
    assert_eq!(files.body("/c").await, (200, b"short".to_vec()));
    files.put("c_chunk_1", &pattern(9000)).await;
    files.put("c_chunk_2", b"end").await;
    let attr = files.namespace.attr("c").unwrap();
    assert_eq!((attr.chunk_bytes, attr.size), (9000, 9003));
    files.put("c_chunk_1", b"").await;
    assert_eq!(files.body("/c").await, (200, Vec::new()));
    assert_eq!(files.body("/c_chunk_1").await, (200, Vec::new()));
}

/// The chunk's offset in the file was computed from another chunk size.
#[tokio::test]
async fn a_chunk_is_refused_if_the_file_was_restarted_meanwhile() {
    let files = Files::start().await;
    files.put("c_chunk_1", &pattern(9000)).await;
    let ino = files.namespace.attr("c").unwrap().ino;
    let commit = Commit { restart: Some(4000), ..Commit::default() };
    files.namespace.overtake(Change::Commit { ino, commit });
    let (status, text) = files.upload(&[("c_chunk_2", b"end")]).await;
    assert!(status == 409 && text.contains("chunk 2 has changed"), "{status}: {text}");
    assert_eq!(files.namespace.attr("c").unwrap().size, 0);
}

#[tokio::test]
async fn chunks_may_arrive_in_any_order_and_concurrently() {
    let files = Files::start().await;
    let data = pattern(4000 * 40);
    files.put("c_chunk_1", &data[..4000]).await;
    let uploads = stream::iter(2..=40usize).map(|index| {
        let (files, data) = (&files, &data);
        async move { files.put(&format!("c_chunk_{index}"), &data[(index - 1) * 4000..index * 4000]).await }
    });
    uploads.buffer_unordered(16).collect::<Vec<()>>().await;
    assert!(files.body("/c").await == (200, data));
}

/// Chunk 1 dropped all chunks that had been acknowledged before it, also when it arrived for the first time.
#[tokio::test]
async fn chunks_of_a_new_file_may_arrive_in_any_order() {
    let files = Files::start().await;
    let data = pattern(4000 * 4 + 1234);
    for (at, order) in [[5, 4, 3, 2, 1], [3, 2, 1, 4, 5], [2, 1, 5, 4, 3], [5, 1, 3, 2, 4]].iter().enumerate() {
        for &index in order {
            let chunk = &data[(index - 1) * 4000..data.len().min(index * 4000)];
            files.put(&format!("o{at}_chunk_{index}"), chunk).await;
        }
        assert!(files.body(&format!("/o{at}")).await == (200, data.clone()), "{order:?}");
    }
}

#[tokio::test]
async fn a_long_chunk_one_never_drops_chunks_that_were_acknowledged() {
    let files = Files::start().await;
    files.put("l_chunk_2", b"end").await;
    let (status, text) = files.upload(&[("l_chunk_1", &pattern(9000))]).await;
    assert!(status == 400 && text.contains("at most 4000"), "{status} {text}");
    assert_eq!(files.body("/l_chunk_2").await, (200, b"end".to_vec()));
}

/// Two senders may both find a hole where chunk 1 belongs.
#[tokio::test]
async fn a_chunk_that_another_sender_stored_meanwhile_is_replaced() {
    let files = Files::start().await;
    files.put("c_chunk_2", b"two").await;
    let ino = files.namespace.attr("c").unwrap().ino;
    let version = files.namespace.new_version();
    let extents = vec![Extent { first: 3, count: 1, version }];
    let commit = Commit { extents, size_at_least: 8001, ..Commit::default() };
    files.namespace.overtake(Change::Commit { ino, commit });
    files.put("c_chunk_3", b"three").await;
    assert_eq!(files.body("/c_chunk_3").await, (200, b"three".to_vec()));
    assert_eq!(files.chunks.last_durability(), Durability::Disk);
}

/// What was synced is deleted once it is replaced, so what replaces it must not be lost in a power cut.
#[tokio::test]
async fn an_upload_that_replaces_something_is_on_disk_first() {
    let files = Files::start().await;
    let check = |name: &'static str, expected: Durability| {
        let files = &files;
        async move {
            files.put(name, b"bytes").await;
            assert_eq!(files.chunks.last_durability(), expected, "{name}");
        }
    };
    check("w", Durability::Memory).await;
    check("w", Durability::Disk).await;
    check("c_chunk_1", Durability::Memory).await;
    check("c_chunk_2", Durability::Memory).await;
    check("c_chunk_2", Durability::Disk).await;
    check("c_chunk_1", Durability::Disk).await;
    check("c_chunk_9", Durability::Memory).await;
    check("c_chunk_5", Durability::Memory).await;
}

#[tokio::test]
async fn a_later_chunk_creates_the_file_with_a_hole() {
    let files = Files::start().await;
    files.put("h_chunk_3", b"end").await;
    let (status, data) = files.body("/h").await;
    assert_eq!((status, data.len(), &data[8000..]), (200, 8003, &b"end"[..]));
    assert!(data[..8000].iter().all(|byte| *byte == 0));
    assert_eq!(files.body("/h_chunk_2").await, (200, vec![0; 4000]));
}

#[tokio::test]
async fn a_form_of_many_chunks_is_stored() {
    let files = Files::start().await;
    let data = pattern((1 << 20) * 20);
    let part = |form: Form, (at, chunk): (usize, &[u8])| {
        form.part("files", Part::bytes(chunk.to_vec()).file_name(format!("m_chunk_{}", at + 1)))
    };
    let form = data.chunks(1 << 20).enumerate().fold(Form::new(), part);
    assert_eq!(files.send(form).await, (204, String::new()));
    assert!(files.body("/m").await == (200, data));
}

#[tokio::test]
async fn an_existing_file_with_a_chunks_name_is_replaced_as_a_file() {
    let files = Files::start().await;
    files.put("c_chunk_1", b"from c").await;
    files.namespace.make(Ino::ROOT, "c_chunk_1", FileKind::File, "");
    files.put("c_chunk_1", b"itself").await;
    assert_eq!(files.body("/c_chunk_1").await, (200, b"itself".to_vec()));
    assert_eq!(files.body("/c").await, (200, b"from c".to_vec()));
}

#[tokio::test]
async fn chunks_carry_the_name_with_which_the_file_was_created() {
    let files = Files::start().await;
    files.put("old_chunk_1", &pattern(4000)).await;
    files.namespace.rename("old", "new");
    files.put("new_chunk_2", b"tail").await;
    assert_eq!(files.chunks.names(), ["old_chunk_1", "old_chunk_2"]);
    assert_eq!(files.body("/new_chunk_2").await, (200, b"tail".to_vec()));
    assert_eq!(files.body("/old_chunk_1").await.0, 404);
}

#[tokio::test]
async fn a_directory_is_not_replaced() {
    let files = Files::start().await;
    files.namespace.make(Ino::ROOT, "d", FileKind::Directory, "");
    files.check_refused(&[("d", b"x")], 409, "directory").await;
    files.check_refused(&[("d_chunk_1", b"x")], 409, "directory").await;
}

#[tokio::test]
async fn a_failed_upload_leaves_nothing() {
    let files = Files::start().await;
    files.put("a", b"old").await;
    for (failure, status) in [
        (FsError::NoSpace, 507),
        (FsError::NoReplica { detail: "x".into() }, 503),
        (FsError::Internal { detail: "two\nlines".into() }, 500),
    ] {
        files.chunks.fail(Some(failure));
        let (got, text) = files.upload(&[("a", b"new")]).await;
        assert_eq!((got, text.trim_end().lines().count()), (status, 1), "{text}");
        let (got, _) = files.upload(&[("b", &pattern(30 << 20))]).await;
        assert_eq!(got, status);
    }
    files.chunks.fail(None);
    assert_eq!(files.body("/a").await, (200, b"old".to_vec()));
    eventually("only a is left", || files.namespace.inode_count() == 1).await;
}

#[tokio::test]
async fn every_request_fails_without_a_quorum() {
    let files = Files::start().await;
    files.namespace.fail(Some(FsError::NoQuorum { detail: "no leader".into() }));
    assert_eq!(files.upload(&[("a", b"x")]).await.0, 503);
    assert_eq!(files.body("/a").await.0, 503);
    assert_eq!(files.body("/").await.0, 503);
}
