// What the page says, in both languages.

/** @type {Record<string, [string, string]>} English, Chinese. */
const TEXTS = {
  skip: ["Skip to the captions", "跳到字幕"],
  captions: ["Captions", "字幕"],
  nothingYet: ["Captions appear here. Play an example below, or start with your own audio.", "字幕会显示在这里。请播放下面的例子，或使用自己的音频。"],
  demo: ["One text, two answers", "同一文本，两种答案"],
  demoExplained: ["Both recordings have exactly the same text. Where the voice pauses, and how it says 长, decides which names are in it. Play both, then send the text alone.", "两段录音的文字完全相同。停顿的位置和“长”的读音决定其中有哪些专名。请播放两段，然后只发送文字。"],
  textOnly: ["Text only: send no audio", "仅文本：不发送音频"],
  play: ["Play", "播放"],
  bridge: ["Nanjing city and the Yangtze River Bridge: 长 is cháng", "南京市的长江大桥：长读 cháng"],
  mayor: ["Nanjing’s mayor, Jiang Daqiao: 长 is zhǎng", "南京的市长，名叫江大桥：长读 zhǎng"],
  notHeard: ["Not played yet", "尚未播放"],
  heardSame: ["Same text, same answer: the text alone cannot tell the readings apart.", "文字相同，答案相同：仅凭文字无法区分两种读法。"],
  heardDiffer: ["Same text, different answers: only the voice tells them apart.", "文字相同，答案不同：只有声音才能区分。"],
  heardSameVoice: ["Same text, same answer: this model did not tell the readings apart.", "文字相同，答案相同：此模型未能区分两种读法。"],
  heardMixed: ["One card was answered with the voice and one without: play both in the same way to compare.", "一段用了声音，一段没有：请用同样的方式播放两段再比较。"],
  yourOwn: ["Your own voice, file or tab", "自己的声音、文件或标签页"],
  audio: ["Audio", "音频"],
  microphone: ["Microphone", "麦克风"],
  whichMicrophone: ["Which microphone", "选择麦克风"],
  defaultMicrophone: ["The usual one", "默认"],
  file: ["Audio or video file", "音频或视频文件"],
  chooseMedia: ["File (or drop it anywhere)", "文件（或拖放到页面任意处）"],
  tab: ["Sound of a browser tab", "浏览器标签页的声音"],
  noAudio: ["None: text only", "无：仅文本"],
  transcript: ["Transcript", "文字来源"],
  typed: ["Typed, line by line", "逐行键入"],
  captionFile: ["Caption file (VTT or SRT)", "字幕文件（VTT 或 SRT）"],
  chooseCaptions: ["File (or drop it anywhere)", "文件（或拖放到页面任意处）"],
  browserRecogniser: ["This browser’s speech recognition", "浏览器自带的语音识别"],
  serverRecogniser: ["The server’s speech recognition", "服务器的语音识别"],
  recogniserNote: ["The browser may send your voice to its vendor’s servers. This page and its own server do not.", "浏览器可能会把您的声音发送给其厂商的服务器。本页面及其服务器不会。"],
  start: ["Start", "开始"],
  stop: ["Stop", "停止"],
  level: ["Level of the audio", "音量"],
  typeHere: ["What is said; Enter ends the line", "输入所说的内容，回车结束一行"],
  endLine: ["End the line", "结束本行"],
  strip: ["Sound and names", "声音与专名"],
  stripExplained: ["Press a name to hear it.", "点击专名可听其发音。"],
  position: ["Position", "位置"],
  names: ["Names", "专名"],
  namesExplained: ["Every name that was found, the most frequent first", "已找到的全部专名，按次数排列"],
  noNames: ["No names yet.", "暂无专名。"],
  save: ["Save as", "另存为"],
  type: ["Type", "类型"],
  name: ["Name", "专名"],
  count: ["Count", "次数"],
  heardAt: ["Heard at", "出现时间"],
  settings: ["Display", "显示"],
  size: ["Caption size", "字幕大小"],
  small: ["Small", "小"], medium: ["Medium", "中"], large: ["Large", "大"], huge: ["Huge", "特大"],
  theme: ["Theme", "主题"],
  asSystem: ["As the system", "跟随系统"], dark: ["Dark", "深色"], light: ["Light", "浅色"],
  density: ["Names marked", "标记的专名"],
  all: ["All", "全部"], fifteen: ["At most 15 % of the text", "至多占文本的 15 %"], eight: ["At most 8 % of the text", "至多占文本的 8 %"],
  firstOnly: ["Only at first mention", "仅首次出现时"],
  showTentative: ["Also while not certain", "未确定时也标记"],
  contrast: ["High contrast", "高对比度"],
  calm: ["Less motion", "减少动画"],
  aloud: ["Play files and examples aloud", "播放文件和例子的声音"],
  showInObs: ["Show these captions in OBS", "在 OBS 中显示这些字幕"],
  obsAddress: ["Address for a browser source", "浏览器源的地址"],
  obsNote: ["Whoever has this address sees the captions of this page while it is open. Width 1920, height 1080.", "持有此地址的人可在本页面打开期间看到其字幕。宽 1920，高 1080。"],
  honest: ["Names come from a model and can be wrong. Audio and text go to this page’s own server and nowhere else.", "专名由模型给出，可能有误。音频和文字只发送到本页面自己的服务器。"],
  PER: ["person", "人名"], LOC: ["place", "地名"], ORG: ["organisation", "机构"],
  idle: ["Ready", "就绪"],
  connecting: ["Connecting …", "正在连接……"],
  live: ["Live", "实时"],
  silent: ["The server does not answer", "服务器没有响应"],
  waiting: ["Connection lost, trying again", "连接中断，正在重试"],
  finished: ["Finished", "已结束"],
  failed: ["Ended by the server", "已被服务器结束"],
  since: ["{s} s", "{s} 秒"],
  behind: ["answers {ms} ms behind", "答案滞后 {ms} 毫秒"],
  withAudio: ["audio heard", "已用音频"],
  withoutAudio: ["text only", "仅文本"],
  notSent: ["{s} s of audio wait to be sent", "{s} 秒音频等待发送"],
  recorded: ["this session is recorded by the operator", "本次会话被运营者录制"],
  textOnlyChip: ["text only", "仅文本"],
  lostAudio: ["{s} s of audio were lost while the connection was down.", "连接中断期间丢失了 {s} 秒音频。"],
  anew: ["The server knows nothing of the session before. What was unanswered has been sent again.", "服务器没有之前的会话。未得到答复的内容已重新发送。"],
  warning: ["Warning of the server: {detail}", "服务器警告：{detail}"],
  failedBecause: ["The session has ended: {detail}", "会话已结束：{detail}"],
  unanswered: ["Lines without an answer: {n}.", "没有得到答案的行数：{n}。"],
  afterReload: ["The page was loaded anew. Finished captions are still here; the line in progress was lost: “{text}”", "页面已重新加载。已完成的字幕仍在，正在进行的一行丢失了：“{text}”"],
  dismiss: ["Dismiss", "关闭"],
  insecure: ["A browser gives the microphone to secure pages only. Open this page over https://, or as http://localhost or http://127.0.0.1.", "浏览器只允许安全页面使用麦克风。请通过 https:// 或 http://localhost、http://127.0.0.1 打开本页面。"],
  refused: ["The microphone was refused. Allow it for this page in the browser’s settings (the icon beside the address), then start again.", "麦克风权限被拒绝。请在浏览器设置（地址栏旁的图标）中允许，然后重新开始。"],
  noMicrophone: ["No microphone was found. Plug one in, then start again.", "未找到麦克风。请接好后重新开始。"],
  microphoneBusy: ["The microphone could not be opened: another program may be using it.", "无法打开麦克风：可能正被其他程序使用。"],
  deviceLost: ["The microphone is gone (unplugged, or taken by another program). The session was finished.", "麦克风已断开。会话已结束。"],
  tabRefused: ["No tab was chosen.", "没有选择标签页。"],
  tabUnsupported: ["This browser cannot give a page the sound of a tab. Chromium and Edge can.", "此浏览器不能提供标签页的声音；Chromium 和 Edge 可以。"],
  tabSilent: ["The tab was shared without its sound. Tick “share audio” when you choose it.", "共享的标签页没有声音。选择时请勾选“分享音频”。"],
  shareEnded: ["The sharing of the tab has ended.", "标签页共享已结束。"],
  noFile: ["Choose a file first.", "请先选择文件。"],
  undecodable: ["The browser cannot decode {name}.", "浏览器无法解码 {name}。"],
  noCues: ["No captions were found in {name}: expected WebVTT or SRT.", "在 {name} 中没有找到字幕：应为 WebVTT 或 SRT。"],
  captionsLoaded: ["{n} captions from {name} are ready.", "已读取 {name} 中的 {n} 条字幕。"],
  mediaLoaded: ["{name} is ready.", "{name} 已就绪。"],
  recogniserFailed: ["The browser’s speech recognition stopped: {detail}", "浏览器语音识别已停止：{detail}"],
  no_recogniser: ["This server has no speech recognition. Whoever runs it can start it with --source.", "此服务器没有语音识别。运行者可用 --source 启动。"],
  needsAudio: ["The server’s speech recognition needs audio: choose some.", "服务器的语音识别需要音频，请先选择。"],
  noDemo: ["The examples could not be loaded.", "无法加载例子。"],
  hear: ["Hear {name} at {at}", "在 {at} 处听 {name}"],
};

/** @typedef {"en" | "zh"} Language */

let language = "en";

export function speak(chosen) {
  language = chosen;
}

export function spoken() {
  return language;
}

/**
 * A text of the page in its language.
 * @param {string} key
 * @param {Record<string, string | number>} [values] For the `{names}` in it.
 */
export function t(key, values = {}) {
  const text = TEXTS[key]?.[language === "zh" ? 1 : 0] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** Write the texts of everything that has `data-text`. */
export function translate(document) {
  document.documentElement.lang = language === "zh" ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = t(element.dataset.text);
  }
}
