//! Makes the pictures of the page that the documentation shows: `cargo xtask screenshots`.
//!
//! What they show is played from a script, in paused time: it takes as long in every run.

use std::{env, fs, path::PathBuf, time::Duration};

use anyhow::{Context, ensure};
use browser::{Chrome, World};
use portcullis::trace::output;
use tokio::time::sleep;

/// Who looks at it: on a screen, and on a telephone.
const WINDOWS: [(u32, u32); 2] = [(1280, 900), (390, 844)];
/// The largest that a picture may be, in bytes: it is part of the repository.
const MOST: usize = 150_000;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("which folder?")?);
    fs::create_dir_all(&folder)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let mut world = World::new("concierge");
        history(&mut world).await;
        turn(&mut world).await;
        let url = world.show().await;
        let chrome = Chrome::start().await.context("there is no browser")?;
        for (width, height) in WINDOWS {
            for scheme in ["light", "dark"] {
                chrome.resize(width, height, scheme).await;
                let picture = async |place: &str, whole: bool| {
                    let path = folder.join(format!("{place}-{scheme}-{width}.png"));
                    let png = chrome.picture(whole.then_some((width, 900))).await?;
                    ensure!(png.len() < MOST, "{} is too large", path.display());
                    fs::write(&path, &png)?;
                    println!("{} {} KB", path.display(), png.len() / 1024);
                    Ok(())
                };
                chrome.open(&url).await;
                chrome.sees("#live", "live").await;
                chrome.until("document.querySelectorAll('.traces .row').length > 10").await;
                chrome.until("document.querySelectorAll('.targets tbody tr').length > 4").await;
                picture("overview", width > 1000).await?;
                chrome.resize(width, height.min(1880 - width), scheme).await;
                chrome.run("document.querySelector('#traces').scrollIntoView()").await;
                picture("traces", false).await?;
                chrome.resize(width, height, scheme).await;
                chrome.open(&format!("{url}?status=all&name=answer%20question")).await;
                chrome.click(".traces .row").await;
                chrome.click(".plot .line:nth-child(4)").await;
                chrome.run("window.scrollTo(0, 0)").await;
                picture("waterfall", true).await?;
            }
        }
        Ok(())
    })
}

/// Not quite a minute of traffic: one target fails towards the end, one has begun to recover.
async fn history(world: &mut World) {
    const TICK: Duration = Duration::from_millis(250);
    for tick in 0..200_u32 {
        let pay = match tick {
            140.. => "500:30",
            _ if tick % 23 == 7 => "503:20,200:40",
            _ => "200:45+10",
        };
        let news = match tick % 12 {
            3 => "503:12,200:18",
            8 => "503:12,503:14,200:25",
            _ => "200:22",
        };
        let web = if tick % 40 == 11 { "hang" } else { "200:120+60" };
        let mail = match tick {
            60..70 => "500:4",
            // The first probe went well, the second has yet to come.
            0..70 | 192 => "200:6",
            _ => "",
        };
        let calls = [
            ("payments", "payments.example", pay, tick % if tick < 150 { 2 } else { 13 } == 0),
            ("news", "news.example", news, tick % 3 != 1),
            ("web", "web.example", web, tick % 4 != 2),
            ("model", "model.example", "200:140+260", tick % 9 == 0),
            ("crm", "crm.example", if tick > 165 { "500:8" } else { "200:12" }, tick % 7 == 0),
            ("mail", "mail.example", mail, !mail.is_empty()),
        ];
        for (name, host, script, is_made) in calls {
            if is_made {
                tokio::spawn(world.calling(name, &format!("http://{host}/{tick}?{script}")));
            }
        }
        sleep(TICK).await;
    }
}

/// An agent's turn: what it asks for fails in every way there is, and it answers all the same.
async fn turn(world: &mut World) {
    let plan = world.calling("model", "http://model.example/plan?200:120+220");
    let news = world.calling("news", "http://news.example/search?503:42,503:34,200:55+40");
    let rush: Vec<_> = (0..6)
        .map(|n| world.calling("web", &format!("http://web.example/rush/{n}?200:20")))
        .collect();
    let web = world.calling("web", "http://web.example/search?200:160+190");
    let crm = world.calling("crm", "http://crm.example/customer?200:10");
    let answer = world.calling("model", "http://model.example/answer?hang,200:140+230");
    let gather = world.scope("gather").attribute("sources", 2);
    let turn = world.scope("answer question");
    let turn = turn.attribute("user", "u-17").attribute("question", "why is the sky blue?");
    turn.run(async {
        let _ = plan.await;
        // Others are ahead of it at the limit.
        for call in rush {
            tokio::spawn(call);
        }
        tokio::task::yield_now().await;
        gather
            .run(async {
                futures_util::join!(
                    async {
                        let _ = news.await;
                    },
                    async {
                        let _ = web.await;
                    }
                )
            })
            .await;
        let _ = crm.await;
        let _ = answer.await;
        output("Because of Rayleigh scattering: the air scatters blue light more than red.");
    })
    .await;
}
